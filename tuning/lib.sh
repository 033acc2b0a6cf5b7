# shellcheck shell=bash
# Functions that the settings in this folder share. Each of them sources this file, which does nothing by itself.
#
# A setting defines a function `wants`, which lists the wanted values with the functions below (at_least, exactly and
# others); `run` then checks or applies them. Undo does not call `wants`: it restores the saved values.
#
# What always holds:
# * A value is saved before it is first changed, and not again until it is undone: `undo` restores the value from before
#   the first `apply`.
# * A value that is better than wanted is left alone, and not saved.
# * If one value is absent or cannot be written, the others are still set.
#
# TUNING_STATE is the folder of the saved values, by default /var/lib/tickcast-tuning.
# TUNING_ROOT is a prefix of every path: the scripts then work on a copied tree, with the tree's own ethtool, and change
# nothing else.

root=${TUNING_ROOT:-}
state_dir=${TUNING_STATE:-$root/var/lib/tickcast-tuning}
setting=${0##*/}
state=$state_dir/$setting.state
verb=
applicable=no off=no failed=no
drop_in_path='' drop_in_keys=() drop_in_lines=()

# The exit codes of the scripts in this folder.
readonly AS_WANTED=0 NOT_AS_WANTED=1 ERROR=2 NOT_APPLICABLE=3

# --- Command line ----------------------------------------------------------------------------------------------------

# run FUNCTION VERB [ARGUMENT…]
run() {
  local wants=$1
  verb=${2:-}
  case $verb in
    check | apply)
      shift 2
      "$wants" "$@"
      if [ "$verb" = apply ]; then write_drop_in; fi
      finish
      ;;
    undo) undo ;;
    help | -h | --help) usage ;;
    '')
      usage >&2
      exit "$ERROR"
      ;;
    *)
      printf '%s: unknown verb "%s": expected check, apply or undo\n' "$setting" "$verb" >&2
      usage >&2
      exit "$ERROR"
      ;;
  esac
}

# The help text is the header of the script.
usage() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
  printf '\nExit codes: 0 as wanted, 1 not as wanted, 2 usage or error, 3 not applicable here.\n'
}

finish() {
  if [ "$failed" = yes ]; then exit "$ERROR"; fi
  if [ "$off" = yes ]; then exit "$NOT_AS_WANTED"; fi
  if [ "$applicable" = no ]; then exit "$NOT_APPLICABLE"; fi
  exit "$AS_WANTED"
}

# report WORD TEXT: prints one line about a value that was found or changed.
report() {
  printf '%-8s %-15s %s\n' "$1" "$setting" "$2"
}

not_applicable() {
  report absent "not applicable here: $1"
  exit "$NOT_APPLICABLE"
}

usage_error() {
  printf '%s: %s\n' "$setting" "$1" >&2
  exit "$ERROR"
}

# failure TEXT: reports an error, and goes on with the other values.
failure() {
  report failed "$1" >&2
  failed=yes
}

# number_or DEFAULT [GIVEN]: prints the given whole number above 0, or the default.
number_or() {
  local given=${2:-$1}
  [[ $given =~ ^[1-9][0-9]{0,17}$ ]] || usage_error "invalid number \"$given\": expected a whole number above 0"
  printf '%s' "$given"
}

# --- Wanted values ---------------------------------------------------------------------------------------------------

# at_least KEY NUMBER: a sysctl that may also be larger.
at_least() {
  find_value "$(sysctl_path "$1")" "$1" || return 0
  check_or_set "$1" "$(sysctl_path "$1")" "$2" "at least $2" "$(larger_or_same "$value" "$2")"
}

# at_most KEY NUMBER: a sysctl that may also be smaller.
at_most() {
  find_value "$(sysctl_path "$1")" "$1" || return 0
  check_or_set "$1" "$(sysctl_path "$1")" "$2" "at most $2" "$(larger_or_same "$2" "$value")"
}

# exactly KEY TEXT: a sysctl that must have this value.
exactly() {
  find_value "$(sysctl_path "$1")" "$1" || return 0
  check_or_set "$1" "$(sysctl_path "$1")" "$2" "$2" "$(same "$value" "$2")"
}

# triple_at_least KEY LEAST DEFAULT MOST: a sysctl of three numbers, each of which may also be larger.
triple_at_least() {
  local key=$1 first second third
  find_value "$(sysctl_path "$key")" "$key" || return 0
  read -r first second third <<<"$value"
  local wanted="$2 $3 $4" merged
  merged="$(larger "$first" "$2") $(larger "$second" "$3") $(larger "$third" "$4")"
  check_or_set "$key" "$(sysctl_path "$key")" "$merged" "at least $wanted" "$(same "$value" "$merged")"
}

# range_around KEY LOW HIGH: a sysctl of two numbers, whose range may also be wider.
range_around() {
  local key=$1 low high
  find_value "$(sysctl_path "$key")" "$key" || return 0
  read -r low high <<<"$value"
  [ "$low" -le "$2" ] || low=$2
  [ "$high" -ge "$3" ] || high=$3
  check_or_set "$key" "$(sysctl_path "$key")" "$low $high" "$2 to $3" "$(same "$value" "$low $high")"
}

# one_of PATH WANTED [ACCEPTED…]: a file of /sys or /proc that contains one of some words.
one_of() {
  local path=$1 wanted=$2 good=no phrase='' word
  shift
  find_value "$path" "$path" || return 0
  for word; do
    phrase+="${phrase:+ or }$word"
    if [ "$value" = "$word" ]; then good=yes; fi
  done
  check_or_set "$path" "$path" "$wanted" "$phrase" "$good"
}

# --- Values of the kernel --------------------------------------------------------------------------------------------

sysctl_path() {
  printf '/proc/sys/%s' "${1//.//}"
}

# Reads a value into `value`. If a file lists words and marks one with brackets, that one is the value.
read_value() {
  if [ ! -f "$root$1" ] || ! value=$(cat "$root$1" 2>/dev/null); then return 1; fi
  if [[ $value == *\[*\]* ]]; then
    value=${value#*\[}
    value=${value%%\]*}
  fi
}

# The same, and reports a value that is absent.
find_value() {
  read_value "$1" && return 0
  report absent "$2 is not there, or cannot be read"
  return 1
}

larger() { if [ "$(larger_or_same "$1" "$2")" = yes ]; then printf '%s' "$1"; else printf '%s' "$2"; fi; }
larger_or_same() { if [ "$1" -ge "$2" ]; then echo yes; else echo no; fi; }
# Compares two lists of words; the space between them does not matter.
same() {
  local -a one two
  read -ra one <<<"$1"
  read -ra two <<<"$2"
  if [ "${one[*]}" = "${two[*]}" ]; then echo yes; else echo no; fi
}

# check_or_set NAME PATH NEW_VALUE PHRASE GOOD: reports the value that was just read; `apply` sets it if it is not GOOD.
check_or_set() {
  local name=$1 path=$2 new=$3 phrase=$4 good=$5 found=$value
  applicable=yes
  if [ "$good" = yes ]; then
    report ok "$name is ${found//$'\t'/ }; wanted $phrase"
  elif [ "$verb" = check ]; then
    off=yes
    report off "$name is ${found//$'\t'/ }; wanted $phrase"
  else
    set_value "$name" "$path" "$found" "$new"
  fi
}

set_value() {
  local name=$1 path=$2 found=$3 new=$4
  save value "$path" "$found"
  if ! write_value "$path" "$new"; then
    failure "$name stays ${found//$'\t'/ }: writing $new failed$(why_not_written "$path")"
    return
  fi
  read_value "$path" || value=
  if [ "$(same "$value" "$new")" = no ] && ! is_same_mask "$path" "$value" "$new"; then
    failure "$name: wrote $new, but the kernel set ${value//$'\t'/ }"
    return
  fi
  report set "$name is $new; it was ${found//$'\t'/ }"
  persist "$name" "$path" "$new"
}

why_not_written() {
  if [ ! -w "$root$1" ]; then
    printf '; it needs root, and in a container /proc/sys and /sys are often read-only'
  fi
}

# write_value PATH VALUE: false if it failed; prints nothing.
write_value() {
  local target=$root$1 text=$2 words word line=
  if [ -n "$root" ] && [[ $(cat "$target" 2>/dev/null) == *\[*\]* ]]; then
    # In a copied tree there is no kernel to move the brackets.
    words=$(tr -d '[]' <"$target")
    for word in $words; do
      if [ "$word" = "$2" ]; then word="[$word]"; fi
      line+="$word "
    done
    text=${line% }
  fi
  { printf '%s\n' "$text" >"$target"; } 2>/dev/null
}

# --- Values that persist over a reboot -------------------------------------------------------------------------------

# persist NAME PATH VALUE: the value is set again at boot: a sysctl by sysctl.d, a file of /sys by tmpfiles.d.
persist() {
  case $2 in
    /proc/sys/*)
      drop_in_path=/etc/sysctl.d/60-tickcast-$setting.conf
      drop_in_keys+=("$1 =")
      drop_in_lines+=("$1 = $3")
      ;;
    /sys/devices/system/cpu/* | /sys/kernel/*)
      drop_in_path=/etc/tmpfiles.d/tickcast-$setting.conf
      drop_in_keys+=("w $2 ")
      drop_in_lines+=("w $2 - - - - $3")
      ;;
    *) ;; # Devices may appear later, and their numbers change: tickcast-tuning@.service applies the profile again.
  esac
}

# Writes the drop-in; lines of an earlier apply for other keys stay.
write_drop_in() {
  if [ -z "$drop_in_path" ]; then return 0; fi
  local text line key known
  text="# Written by tickcast's tuning/$setting; 'tuning/$setting undo' removes it."$'\n'
  if [ -f "$root$drop_in_path" ]; then
    while IFS= read -r line; do
      known=no
      for key in "${drop_in_keys[@]}"; do
        if [[ $line == "$key"* ]]; then known=yes; fi
      done
      if [ "$known" = no ] && [[ $line != \#* ]]; then text+=$line$'\n'; fi
    done <"$root$drop_in_path"
  fi
  for line in "${drop_in_lines[@]}"; do text+=$line$'\n'; done
  write_file "$drop_in_path" "$text" || true
}

# write_file PATH TEXT: writes a configuration file, and saves the one before. False if it failed.
write_file() {
  if [ -f "$root$1" ] && [ "$(cat "$root$1"; printf x)" = "$2x" ]; then return 0; fi
  save_file "$1"
  if { printf '%s' "$2" >"$root$1"; } 2>/dev/null; then
    report set "$1 is written"
  else
    failure "$1 cannot be written$(why_not_written "${1%/*}")"
    return 1
  fi
}

# --- Saved values ----------------------------------------------------------------------------------------------------

# save KIND WHERE WHAT: adds a line to the state file, once for each kind and path.
save() {
  if is_saved "$1" "$2"; then return 0; fi
  if ! { mkdir -p "$state_dir" && printf '%s %s %s\n' "$1" "$2" "$3" >>"$state"; } 2>/dev/null; then
    report failed "nothing was changed: $state cannot be written; apply and undo need root" >&2
    exit "$ERROR"
  fi
}

is_saved() {
  local kind where _
  if [ ! -f "$state" ]; then return 1; fi
  while read -r kind where _; do
    if [ "$kind $where" = "$1 $2" ]; then return 0; fi
  done <"$state"
  return 1
}

save_file() {
  if is_saved file "$1"; then return 0; fi
  local copy=$state_dir/$setting${1//\//%}
  if [ ! -f "$root$1" ]; then
    save file "$1" absent
    make_folder "${1%/*}"
  else
    if ! { mkdir -p "$state_dir" && cp -p "$root$1" "$copy"; } 2>/dev/null; then
      report failed "nothing was changed: $copy cannot be written; apply and undo need root" >&2
      exit "$ERROR"
    fi
    save file "$1" "$copy"
  fi
}

# make_folder PATH: creates a folder and those above it, and saves their names. The last setting that is undone removes
# them.
make_folder() {
  if [ -z "$1" ] || [ -d "$root$1" ]; then return 0; fi
  make_folder "${1%/*}"
  if { mkdir "$root$1" && printf '%s\n' "$1" >>"$state_dir/folders"; } 2>/dev/null; then return 0; fi
  failure "$1 cannot be created$(why_not_written "${1%/*}")"
}

remove_folders() {
  local -a made=()
  if [ -f "$state_dir/folders" ]; then mapfile -t made <"$state_dir/folders"; fi
  local at
  for ((at = ${#made[@]} - 1; at >= 0; at--)); do
    rmdir "$root${made[at]}" 2>/dev/null || true
  done
  if ! compgen -G "$state_dir/*.state" >/dev/null; then rm -f "$state_dir/folders"; fi
}

# Restores everything, the last change first.
undo() {
  local -a lines=()
  if [ ! -f "$state" ]; then
    report ok 'nothing to undo'
    exit "$AS_WANTED"
  fi
  mapfile -t lines <"$state"
  local at
  for ((at = ${#lines[@]} - 1; at >= 0; at--)); do
    undo_line "${lines[at]}"
  done
  if [ "$failed" = yes ]; then exit "$ERROR"; fi
  rm -f "$state"
  remove_folders
  rmdir "$state_dir" 2>/dev/null || true
  exit "$AS_WANTED"
}

undo_line() {
  local kind=${1%% *} rest=${1#* }
  local where=${rest%% *} what=${rest#* }
  case $kind in
    value) undo_value "$where" "$what" ;;
    file) undo_file "$where" "$what" ;;
    ethtool) undo_ethtool "$where" "$what" ;;
    *) failure "$state: unknown line: $1" ;;
  esac
}

undo_value() {
  local name=$1
  if [[ $1 == /proc/sys/* ]]; then
    name=${1#/proc/sys/}
    name=${name//\//.}
  fi
  if ! read_value "$1"; then
    report absent "$name is no longer there"
  elif [ "$value" = "$2" ]; then
    report ok "$name is ${2//$'\t'/ } already"
  elif write_value "$1" "$2"; then
    report undone "$name is ${2//$'\t'/ } again"
  else
    failure "$name stays $value: writing ${2//$'\t'/ } failed$(why_not_written "$1")"
  fi
}

undo_file() {
  if [ "$2" = absent ]; then
    if rm -f "$root$1" 2>/dev/null; then report undone "$1 is removed"; else failure "$1 cannot be removed"; fi
  elif cp -p "$2" "$root$1" 2>/dev/null && rm -f "$2"; then
    report undone "$1 is restored"
  else
    failure "$1 cannot be restored from $2"
  fi
}

# --- Limits of login sessions ----------------------------------------------------------------------------------------

# limit_at_least NAME ROW NUMBER|unlimited (KiB for memlock): a resource limit, either of this shell (the hard limit in
# its row of /proc/self/limits) or of the next login (in limits.d).
limit_at_least() {
  local name=$1 row=$2 wanted=$3 found at_login unit='' phrase="at least $3"
  local drop_in=/etc/security/limits.d/60-tickcast-$1.conf
  if [ "$wanted" = unlimited ]; then phrase=unlimited; fi
  found=$(hard_limit "$row")
  # The kernel counts locked memory in bytes, limits.d in KiB.
  if [ "$name" = memlock ] && [ -n "$found" ] && [ "$found" != unlimited ]; then
    found=$((found / 1024)) unit=' KiB'
  fi
  if [ -z "$found" ]; then
    report absent "the limit \"$row\" is not in /proc/self/limits"
    return 0
  fi
  applicable=yes
  local text="# Written by tickcast's tuning/$setting; '*' does not cover root."$'\n' who
  for who in '*' root; do text+="$who - $name $wanted"$'\n'; done
  if [ "$(limit_suffices "$found" "$wanted")" = yes ]; then
    report ok "$name of this shell is $found$unit; wanted $phrase"
  elif at_login=$(login_limit "$name" "$drop_in") && [ "$(limit_suffices "$at_login" "$wanted")" = yes ]; then
    report ok "$name is $at_login from the next login on; this shell has $found$unit"
  elif [ "$verb" = check ]; then
    off=yes
    report off "$name of this shell is $found$unit; wanted $phrase"
  else
    write_file "$drop_in" "$text" || return 0
    report set "$name is $wanted from the next login on; this shell keeps $found$unit"
  fi
}

# The limit of all users in the drop-in; false if there is none.
login_limit() {
  sed -n "s/^\* - $1 \([0-9]\{1,18\}\|unlimited\)\$/\1/p" "$root$2" 2>/dev/null | grep -m 1 .
}

# The third of the columns name (of several words), soft, hard, unit.
hard_limit() {
  sed -n "s/^$1 *[^ ]* *\([^ ]*\).*/\1/p" "$root/proc/self/limits" 2>/dev/null || true
}

limit_suffices() {
  if [ "$1" = unlimited ]; then
    echo yes
  elif [ "$2" = unlimited ]; then
    echo no
  else
    larger_or_same "$1" "$2"
  fi
}

# --- Network devices -------------------------------------------------------------------------------------------------

# find_interface [NAME]: sets `interface` to NAME, or to the interface of the default route.
find_interface() {
  interface=${1:-$(default_interface)}
  if [ -z "$interface" ]; then not_applicable 'there is no default route; name an interface'; fi
  if [ ! -e "$root/sys/class/net/$interface" ]; then
    usage_error "unknown interface \"$interface\": expected one of /sys/class/net"
  fi
  if [ "$interface" = lo ]; then not_applicable 'lo has no hardware'; fi
}

default_interface() {
  local name destination mask
  if [ -f "$root/proc/net/route" ]; then
    while read -r name destination _ _ _ _ _ mask _; do
      if [ "$destination$mask" = 0000000000000000 ]; then
        printf '%s' "$name"
        return
      fi
    done <"$root/proc/net/route"
  fi
  if [ -f "$root/proc/net/ipv6_route" ]; then
    # Destination and prefix length first, the interface last; unreachable destinations are listed on lo.
    sed -n 's/^0\{32\} 00 .* \([^ ]*\)$/\1/p' "$root/proc/net/ipv6_route" | grep -vx lo | head -n 1 || true
  fi
}

# Sets `ethtool` to the program: that of the copied tree, if there is one.
find_ethtool() {
  if [ -n "$root" ]; then ethtool=$root/usr/sbin/ethtool; else ethtool=$(command -v ethtool || true); fi
  if [ ! -x "$ethtool" ]; then not_applicable 'ethtool is not installed; apt-get install ethtool'; fi
}

# ethtool_set OPTION PARAMETER FOUND NEW: changes one parameter of the interface.
ethtool_set() {
  local option=$1 parameter=$2 found=$3 new=$4 output
  save ethtool "$interface:$option:$parameter" "$found"
  if output=$("$ethtool" "$option" "$interface" "$parameter" "$new" 2>&1); then
    report set "$interface: $parameter is $new; it was $found"
  else
    failure "$interface: $parameter stays $found: ${output//$'\n'/ }"
  fi
}

undo_ethtool() {
  local device option parameter output
  IFS=: read -r device option parameter <<<"$1"
  find_ethtool
  if [ ! -e "$root/sys/class/net/$device" ]; then
    report absent "$device is no longer there"
  elif output=$("$ethtool" "$option" "$device" "$parameter" "$2" 2>&1); then
    report undone "$device: $parameter is $2 again"
  else
    failure "$device: $parameter cannot be restored to $2: ${output//$'\n'/ }"
  fi
}

# --- Cores -----------------------------------------------------------------------------------------------------------

# expand_list LIST: prints the numbers of a list like 0,2-5, one a line.
expand_list() {
  local part
  for part in ${1//,/ }; do
    [[ $part =~ ^[0-9]+(-[0-9]+)?$ ]] || usage_error "invalid list of cores \"$1\": expected one like 0,2-5"
    seq "${part%-*}" "${part#*-}"
  done
}

# Sets `all_cores` to the numbers of the online cores.
find_cores() {
  local path=/sys/devices/system/cpu/online
  read_value "$path" || not_applicable "$path cannot be read"
  # shellcheck disable=SC2034 # For the settings.
  mapfile -t all_cores < <(expand_list "$value")
}

# core_mask CORE…: prints the cores as a mask of the kernel, groups of 32 bits with commas between them.
core_mask() {
  local core group text=
  local -a groups=()
  for core; do
    group=$((core / 32))
    groups[group]=$((${groups[group]:-0} | 1 << core % 32))
  done
  for ((group = ${#groups[@]} == 0 ? 0 : $(printf '%s\n' "${!groups[@]}" | tail -n 1); group >= 0; group--)); do
    text+=$(printf '%08x,' "${groups[group]:-0}")
  done
  printf '%s' "${text%,}"
}

# The kernel prints masks as wide as it has cores, with any width written.
is_same_mask() {
  [[ $1 == *_cpus ]] && [ "$(plain_mask "$2")" = "$(plain_mask "$3")" ]
}

# plain_mask MASK: prints it without commas and leading zeros, for comparison.
plain_mask() {
  local mask=${1//,/}
  mask=${mask#"${mask%%[!0]*}"}
  printf '%s' "${mask:-0}"
}
