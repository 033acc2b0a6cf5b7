# shellcheck shell=bash
# What the settings in this folder share. It is sourced by each of them and does nothing by itself.
#
# A setting says in a function `wants` which values it wants, by the words below (at_least, exactly and
# others), and `run` then checks or applies them. Undoing needs no `wants`: it goes by what was remembered.
#
# What always holds:
# * A value is remembered before it is first changed, and never again until it is undone: what `undo` brings back is
#   what was there before the first `apply`.
# * What is better than wanted already is left alone, and not remembered.
# * One value that is not there, or that cannot be written, does not keep the others from being set.
#
# TUNING_STATE is the folder of what is remembered, by default /var/lib/tickcast-tuning.
# TUNING_ROOT is put in front of every path: the scripts then work on a copied tree, with the tree's own ethtool, and
# touch nothing else.

root=${TUNING_ROOT:-}
state_dir=${TUNING_STATE:-$root/var/lib/tickcast-tuning}
setting=${0##*/}
state=$state_dir/$setting.state
verb=
applicable=no off=no failed=no
keep_path='' keep_keys=() keep_lines=()

# The exit codes of every script here.
readonly AS_WANTED=0 NOT_AS_WANTED=1 ERROR=2 NOT_APPLICABLE=3

# --- The frame -------------------------------------------------------------------------------------------------------

# run FUNCTION VERB [ARGUMENT…]
run() {
  local wants=$1
  verb=${2:-}
  case $verb in
    check | apply)
      shift 2
      "$wants" "$@"
      if [ "$verb" = apply ]; then keep_lines_in_drop_in; fi
      finish
      ;;
    undo) undo ;;
    help | -h | --help) usage ;;
    '')
      usage >&2
      exit "$ERROR"
      ;;
    *)
      printf '%s: %s is not a verb; have check, apply, undo\n' "$setting" "$verb" >&2
      usage >&2
      exit "$ERROR"
      ;;
  esac
}

# The header of the script itself is its help.
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

# say WORD TEXT: one line of what was found or done.
say() {
  printf '%-8s %-15s %s\n' "$1" "$setting" "$2"
}

not_applicable() {
  say absent "not applicable here: $1"
  exit "$NOT_APPLICABLE"
}

usage_error() {
  printf '%s: %s\n' "$setting" "$1" >&2
  exit "$ERROR"
}

# failure TEXT: something could not be done; the rest is still tried.
failure() {
  say failed "$1" >&2
  failed=yes
}

# number_or DEFAULT [GIVEN]: prints the given whole number above 0, or the default.
number_or() {
  local given=${2:-$1}
  [[ $given =~ ^[1-9][0-9]{0,17}$ ]] || usage_error "$given is not a whole number above 0"
  printf '%s' "$given"
}

# --- Words for what is wanted ----------------------------------------------------------------------------------------

# at_least KEY NUMBER: a sysctl that may be larger.
at_least() {
  find_value "$(sysctl_path "$1")" "$1" || return 0
  settle "$1" "$(sysctl_path "$1")" "$2" "at least $2" "$(larger_or_same "$value" "$2")"
}

# at_most KEY NUMBER: a sysctl that may be smaller.
at_most() {
  find_value "$(sysctl_path "$1")" "$1" || return 0
  settle "$1" "$(sysctl_path "$1")" "$2" "at most $2" "$(larger_or_same "$2" "$value")"
}

# exactly KEY TEXT: a sysctl of one right value.
exactly() {
  find_value "$(sysctl_path "$1")" "$1" || return 0
  settle "$1" "$(sysctl_path "$1")" "$2" "$2" "$(same "$value" "$2")"
}

# triple_at_least KEY LEAST DEFAULT MOST: a sysctl of three numbers, each of which may be larger.
triple_at_least() {
  local key=$1 first second third
  find_value "$(sysctl_path "$key")" "$key" || return 0
  read -r first second third <<<"$value"
  local wanted="$2 $3 $4" merged
  merged="$(larger "$first" "$2") $(larger "$second" "$3") $(larger "$third" "$4")"
  settle "$key" "$(sysctl_path "$key")" "$merged" "at least $wanted" "$(same "$value" "$merged")"
}

# range_around KEY LOW HIGH: a sysctl of two numbers that may span more.
range_around() {
  local key=$1 low high
  find_value "$(sysctl_path "$key")" "$key" || return 0
  read -r low high <<<"$value"
  [ "$low" -le "$2" ] || low=$2
  [ "$high" -ge "$3" ] || high=$3
  settle "$key" "$(sysctl_path "$key")" "$low $high" "$2 to $3" "$(same "$value" "$low $high")"
}

# one_of PATH WANTED [ALSO_FINE…]: a file of /sys or /proc that holds one of some words.
one_of() {
  local path=$1 wanted=$2 good=no phrase='' word
  shift
  find_value "$path" "$path" || return 0
  for word; do
    phrase+="${phrase:+ or }$word"
    if [ "$value" = "$word" ]; then good=yes; fi
  done
  settle "$path" "$path" "$wanted" "$phrase" "$good"
}

# --- Values of the kernel --------------------------------------------------------------------------------------------

sysctl_path() {
  printf '/proc/sys/%s' "${1//.//}"
}

# Reads a value into `value`. Where a file offers words and marks one by brackets, that one is the value.
read_value() {
  if [ ! -f "$root$1" ] || ! value=$(cat "$root$1" 2>/dev/null); then return 1; fi
  if [[ $value == *\[*\]* ]]; then
    value=${value#*\[}
    value=${value%%\]*}
  fi
}

# The same, and says so where there is none.
find_value() {
  read_value "$1" && return 0
  say absent "$2 is not there, or cannot be read"
  return 1
}

larger() { if [ "$(larger_or_same "$1" "$2")" = yes ]; then printf '%s' "$1"; else printf '%s' "$2"; fi; }
larger_or_same() { if [ "$1" -ge "$2" ]; then echo yes; else echo no; fi; }
# Words, whatever the space between them.
same() {
  local -a one two
  read -ra one <<<"$1"
  read -ra two <<<"$2"
  if [ "${one[*]}" = "${two[*]}" ]; then echo yes; else echo no; fi
}

# settle NAME PATH NEW_VALUE PHRASE GOOD: reports, and when applying sets, the value that was just read.
settle() {
  local name=$1 path=$2 new=$3 phrase=$4 good=$5 found=$value
  applicable=yes
  if [ "$good" = yes ]; then
    say ok "$name is ${found//$'\t'/ }; wanted $phrase"
  elif [ "$verb" = check ]; then
    off=yes
    say off "$name is ${found//$'\t'/ }; wanted $phrase"
  else
    change "$name" "$path" "$found" "$new"
  fi
}

change() {
  local name=$1 path=$2 found=$3 new=$4
  remember value "$path" "$found"
  if ! write_value "$path" "$new"; then
    failure "$name stays ${found//$'\t'/ }: $new was not taken$(why_not_written "$path")"
    return
  fi
  read_value "$path" || value=
  if [ "$(same "$value" "$new")" = no ] && ! is_same_mask "$path" "$value" "$new"; then
    failure "$name: the kernel made ${value//$'\t'/ } of $new"
    return
  fi
  say set "$name is $new; it was ${found//$'\t'/ }"
  keep "$name" "$path" "$new"
}

why_not_written() {
  if [ ! -w "$root$1" ]; then
    printf '; it needs root, and in a container /proc/sys and /sys are often read-only'
  fi
}

# write_value PATH VALUE: quiet; false where it was not taken.
write_value() {
  local target=$root$1 text=$2 words word line=
  if [ -n "$root" ] && [[ $(cat "$target" 2>/dev/null) == *\[*\]* ]]; then
    # No kernel stands behind a copied tree to move the brackets.
    words=$(tr -d '[]' <"$target")
    for word in $words; do
      if [ "$word" = "$2" ]; then word="[$word]"; fi
      line+="$word "
    done
    text=${line% }
  fi
  { printf '%s\n' "$text" >"$target"; } 2>/dev/null
}

# --- What outlasts a reboot ------------------------------------------------------------------------------------------

# keep NAME PATH VALUE: has the value set again at boot: a sysctl by sysctl.d, a file of /sys by tmpfiles.d.
keep() {
  case $2 in
    /proc/sys/*)
      keep_path=/etc/sysctl.d/60-tickcast-$setting.conf
      keep_keys+=("$1 =")
      keep_lines+=("$1 = $3")
      ;;
    /sys/devices/system/cpu/* | /sys/kernel/*)
      keep_path=/etc/tmpfiles.d/tickcast-$setting.conf
      keep_keys+=("w $2 ")
      keep_lines+=("w $2 - - - - $3")
      ;;
    *) ;; # Devices may come later than any of these, and their numbers change: the profile is applied anew at boot.
  esac
}

# Writes what was kept; lines of an earlier apply for other keys stay.
keep_lines_in_drop_in() {
  if [ -z "$keep_path" ]; then return 0; fi
  local text line key known
  text="# Written by tickcast's tuning/$setting; 'tuning/$setting undo' takes it away."$'\n'
  if [ -f "$root$keep_path" ]; then
    while IFS= read -r line; do
      known=no
      for key in "${keep_keys[@]}"; do
        if [[ $line == "$key"* ]]; then known=yes; fi
      done
      if [ "$known" = no ] && [[ $line != \#* ]]; then text+=$line$'\n'; fi
    done <"$root$keep_path"
  fi
  for line in "${keep_lines[@]}"; do text+=$line$'\n'; done
  write_file "$keep_path" "$text" || true
}

# write_file PATH TEXT: a file of configuration, as a whole. What was there is remembered. False where it failed.
write_file() {
  if [ -f "$root$1" ] && [ "$(cat "$root$1"; printf x)" = "$2x" ]; then return 0; fi
  remember_file "$1"
  if { printf '%s' "$2" >"$root$1"; } 2>/dev/null; then
    say set "$1 is written"
  else
    failure "$1 cannot be written$(why_not_written "${1%/*}")"
    return 1
  fi
}

# --- What is remembered ----------------------------------------------------------------------------------------------

# remember KIND WHERE WHAT: one line of the state file, once for each kind and place.
remember() {
  if is_remembered "$1" "$2"; then return 0; fi
  if ! { mkdir -p "$state_dir" && printf '%s %s %s\n' "$1" "$2" "$3" >>"$state"; } 2>/dev/null; then
    say failed "nothing was changed: $state cannot be written; apply and undo need root" >&2
    exit "$ERROR"
  fi
}

is_remembered() {
  local kind where _
  if [ ! -f "$state" ]; then return 1; fi
  while read -r kind where _; do
    if [ "$kind $where" = "$1 $2" ]; then return 0; fi
  done <"$state"
  return 1
}

remember_file() {
  if is_remembered file "$1"; then return 0; fi
  local copy=$state_dir/$setting${1//\//%}
  if [ ! -f "$root$1" ]; then
    remember file "$1" absent
    make_folder "${1%/*}"
  else
    if ! { mkdir -p "$state_dir" && cp -p "$root$1" "$copy"; } 2>/dev/null; then
      say failed "nothing was changed: $copy cannot be written; apply and undo need root" >&2
      exit "$ERROR"
    fi
    remember file "$1" "$copy"
  fi
}

# make_folder PATH: with those above it, each of them remembered. Whichever setting wanted it first, the last one that is
# undone takes it away.
make_folder() {
  if [ -z "$1" ] || [ -d "$root$1" ]; then return 0; fi
  make_folder "${1%/*}"
  if { mkdir "$root$1" && printf '%s\n' "$1" >>"$state_dir/folders"; } 2>/dev/null; then return 0; fi
  failure "$1 cannot be made$(why_not_written "${1%/*}")"
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

# Puts everything back, the last change first.
undo() {
  local -a lines=()
  if [ ! -f "$state" ]; then
    say ok 'nothing to undo'
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
    *) failure "$state has a line that is not understood: $1" ;;
  esac
}

undo_value() {
  local name=$1
  if [[ $1 == /proc/sys/* ]]; then
    name=${1#/proc/sys/}
    name=${name//\//.}
  fi
  if ! read_value "$1"; then
    say absent "$name is no longer there"
  elif [ "$value" = "$2" ]; then
    say ok "$name is ${2//$'\t'/ } again already"
  elif write_value "$1" "$2"; then
    say undone "$name is ${2//$'\t'/ } again"
  else
    failure "$name stays $value: ${2//$'\t'/ } was not taken$(why_not_written "$1")"
  fi
}

undo_file() {
  if [ "$2" = absent ]; then
    if rm -f "$root$1" 2>/dev/null; then say undone "$1 is gone"; else failure "$1 cannot be removed"; fi
  elif cp -p "$2" "$root$1" 2>/dev/null && rm -f "$2"; then
    say undone "$1 is as it was"
  else
    failure "$1 cannot be put back from $2"
  fi
}

# --- Limits of sessions ----------------------------------------------------------------------------------------------

# limit_at_least NAME ROW NUMBER|unlimited (KiB for memlock): a resource limit, as this shell has it (the hard one, by
# its row in /proc/self/limits) or as limits.d gives it to the next login.
limit_at_least() {
  local name=$1 row=$2 wanted=$3 found kept unit='' phrase="at least $3" drop_in=/etc/security/limits.d/60-tickcast-$1.conf
  if [ "$wanted" = unlimited ]; then phrase=unlimited; fi
  found=$(hard_limit "$row")
  # The kernel counts locked memory in bytes, limits.d in KiB.
  if [ "$name" = memlock ] && [ -n "$found" ] && [ "$found" != unlimited ]; then
    found=$((found / 1024)) unit=' KiB'
  fi
  if [ -z "$found" ]; then
    say absent "the limit \"$row\" is not in /proc/self/limits"
    return 0
  fi
  applicable=yes
  local text="# Written by tickcast's tuning/$setting; '*' does not cover root."$'\n' who
  for who in '*' root; do text+="$who - $name $wanted"$'\n'; done
  if [ "$(limit_suffices "$found" "$wanted")" = yes ]; then
    say ok "$name of this shell is $found$unit; wanted $phrase"
  elif kept=$(limit_kept "$name" "$drop_in") && [ "$(limit_suffices "$kept" "$wanted")" = yes ]; then
    say ok "$name is $kept from the next login on; this shell has $found$unit"
  elif [ "$verb" = check ]; then
    off=yes
    say off "$name of this shell is $found$unit; wanted $phrase"
  else
    write_file "$drop_in" "$text" || return 0
    say set "$name is $wanted from the next login on; this shell keeps $found$unit"
  fi
}

# What the drop-in says for everybody; false where it says nothing.
limit_kept() {
  sed -n "s/^\* - $1 \([0-9]\{1,18\}\|unlimited\)\$/\1/p" "$root$2" 2>/dev/null | grep -m 1 .
}

# The third column: name (of several words), soft, hard, unit.
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

# find_interface [NAME]: sets `interface` to the named one, or to that of the default route.
find_interface() {
  interface=${1:-$(default_interface)}
  if [ -z "$interface" ]; then not_applicable 'there is no default route; name an interface'; fi
  if [ ! -e "$root/sys/class/net/$interface" ]; then usage_error "there is no interface $interface"; fi
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
    # Destination and prefix length first, the interface last; what cannot be reached is listed on lo.
    sed -n 's/^0\{32\} 00 .* \([^ ]*\)$/\1/p' "$root/proc/net/ipv6_route" | grep -vx lo | head -n 1 || true
  fi
}

# Sets `ethtool` to the program: the copied tree's where there is one.
find_ethtool() {
  if [ -n "$root" ]; then ethtool=$root/usr/sbin/ethtool; else ethtool=$(command -v ethtool || true); fi
  if [ ! -x "$ethtool" ]; then not_applicable 'ethtool is not installed; apt-get install ethtool'; fi
}

# ethtool_set OPTION PARAMETER FOUND NEW: changes one parameter of the interface.
ethtool_set() {
  local option=$1 parameter=$2 found=$3 new=$4 said
  remember ethtool "$interface:$option:$parameter" "$found"
  if said=$("$ethtool" "$option" "$interface" "$parameter" "$new" 2>&1); then
    say set "$interface: $parameter is $new; it was $found"
  else
    failure "$interface: $parameter stays $found: ${said//$'\n'/ }"
  fi
}

undo_ethtool() {
  local device option parameter said
  IFS=: read -r device option parameter <<<"$1"
  find_ethtool
  if [ ! -e "$root/sys/class/net/$device" ]; then
    say absent "$device is no longer there"
  elif said=$("$ethtool" "$option" "$device" "$parameter" "$2" 2>&1); then
    say undone "$device: $parameter is $2 again"
  else
    failure "$device: $parameter cannot be set back to $2: ${said//$'\n'/ }"
  fi
}

# --- Cores -----------------------------------------------------------------------------------------------------------

# expand_list LIST: the numbers of a list like 0,2-5, one a line.
expand_list() {
  local part
  for part in ${1//,/ }; do
    [[ $part =~ ^[0-9]+(-[0-9]+)?$ ]] || usage_error "$1 is not a list of cores like 0,2-5"
    seq "${part%-*}" "${part#*-}"
  done
}

# Sets `all_cores` to the numbers of the cores in use.
find_cores() {
  local path=/sys/devices/system/cpu/online
  read_value "$path" || not_applicable "$path cannot be read"
  # shellcheck disable=SC2034 # For the settings.
  mapfile -t all_cores < <(expand_list "$value")
}

# core_mask CORE…: the cores as a mask of the kernel, groups of 32 bits with commas between them.
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

# The kernel writes masks as wide as it has cores, whatever it was given.
is_same_mask() {
  [[ $1 == *_cpus ]] && [ "$(plain_mask "$2")" = "$(plain_mask "$3")" ]
}

# plain_mask MASK: without commas and leading zeros, to be compared.
plain_mask() {
  local mask=${1//,/}
  mask=${mask#"${mask%%[!0]*}"}
  printf '%s' "${mask:-0}"
}
