//! What the system reports about a process: the process that listens on an address, its CPU time, memory and cores.
//!
//! What always holds: the parsers are pure, and text that they cannot read is an error that names the file. The process
//! itself is not involved, so that any server can be observed at no cost to it. Sources: proc(5),
//! Documentation/scheduler/sched-stats.rst and Documentation/filesystems/proc.rst of the kernel.
//!
//! Cost: about 20 µs a thread; 50 µs and more for memory, which walks the pages of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The state of a listening socket in `/proc/net/tcp`: `TCP_LISTEN`.
const LISTENING: &str = "0A";
const KIB: u64 = 1024;

/// Why a process cannot be observed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No process of this machine and network namespace listens there.
    #[error("no process on this machine listens on {0}; give the server's pid, or run this in its network namespace")]
    NoListener(SocketAddr),
    /// A process listens, and its files may not be read.
    #[error("the process that listens on {0} belongs to another user; run this as that user, or as root")]
    NotOurs(SocketAddr),
    /// The process has ended.
    #[error("process {0} has ended")]
    Ended(u32),
    /// A file of `/proc` that cannot be read.
    #[error("{}: {error}{}", path.display(), permission_hint(error))]
    Unreadable { path: PathBuf, error: io::Error },
    /// A file of `/proc` without the expected content.
    #[error("{}: no {what} in it", path.display())]
    Malformed { path: PathBuf, what: &'static str },
}

fn permission_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; run this as the process's user, or as root",
        _ => "",
    }
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedProcess {
    pid: u32,
}

/// CPU time since the start of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Of all its threads, ns.
    pub total_ns: u64,
    /// The same by thread name; threads of the same name are added up.
    pub by_thread: BTreeMap<String, u64>,
}

/// ProcessMemory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident; shared pages count in proportion.
    pub pss: u64,
    /// Resident and not shared.
    pub private: u64,
    /// Resident and not backed by a file: heaps and stacks.
    pub anonymous: u64,
}

/// Time of a core, in clock ticks since the machine's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTime {
    pub busy: u64,
    pub idle: u64,
}

impl ObservedProcess {
    /// The process with this id.
    pub fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// The process on this machine that listens on `address`, or on its port of all addresses.
    pub fn listening_on(address: SocketAddr) -> Result<Self, ProbeError> {
        let mut inodes = BTreeSet::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            // A kernel without IPv6 has no second table.
            let text = if Path::new(table).exists() { read(table)? } else { String::new() };
            inodes.extend(listeners(&text).filter(|(bound, _)| covers(*bound, address)).map(|(_, inode)| inode));
        }
        if inodes.is_empty() {
            return Err(ProbeError::NoListener(address));
        }
        let mut hidden = false;
        for pid in numbers_in("/proc")? {
            match holds_socket(pid, &inodes) {
                Ok(true) => return Ok(Self { pid }),
                Ok(false) => {}
                Err(error) => hidden |= error.kind() == ErrorKind::PermissionDenied,
            }
        }
        Err(if hidden { ProbeError::NotOurs(address) } else { ProbeError::NoListener(address) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The CPU time of its threads so far, without threads that have ended.
    pub fn cpu(&self) -> Result<CpuTime, ProbeError> {
        let mut cpu = CpuTime::default();
        for thread in self.threads()? {
            let folder = format!("/proc/{}/task/{thread}", self.pid);
            // A thread may have ended since the list was read.
            let Some((name, ns)) = unless_ended(thread_time(&folder))? else { continue };
            cpu.total_ns += ns;
            *cpu.by_thread.entry(name).or_default() += ns;
        }
        Ok(cpu)
    }

    /// Its memory.
    pub fn memory(&self) -> Result<ProcessMemory, ProbeError> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = self.read(&path)?;
        parse_memory(&text).ok_or_else(|| malformed(&path, "Pss, Private_Clean, Private_Dirty and Anonymous in kB"))
    }

    /// Its resident memory in bytes: less exact than [`Self::memory`], and cheap enough for twenty samples a second.
    pub fn resident(&self) -> Result<u64, ProbeError> {
        let path = format!("/proc/{}/status", self.pid);
        parse_resident(&self.read(&path)?).ok_or_else(|| malformed(&path, "VmRSS in kB"))
    }

    /// The cores that any of its threads may run on.
    pub fn cores(&self) -> Result<BTreeSet<usize>, ProbeError> {
        let mut cores = BTreeSet::new();
        for thread in self.threads()? {
            let path = format!("/proc/{}/task/{thread}/status", self.pid);
            let Some(text) = unless_ended(read(&path))? else { continue };
            cores.extend(parse_cores(&text).ok_or_else(|| malformed(&path, "Cpus_allowed_list"))?);
        }
        Ok(cores)
    }

    fn threads(&self) -> Result<Vec<u32>, ProbeError> {
        numbers_in(&format!("/proc/{}/task", self.pid)).map_err(|error| self.or_ended(error))
    }

    fn read(&self, path: &str) -> Result<String, ProbeError> {
        read(path).map_err(|error| self.or_ended(error))
    }

    fn or_ended(&self, error: ProbeError) -> ProbeError {
        if has_ended(&error) { ProbeError::Ended(self.pid) } else { error }
    }
}

/// The time of each core so far, by its number.
pub fn core_times() -> Result<BTreeMap<usize, CoreTime>, ProbeError> {
    const PATH: &str = "/proc/stat";
    let times = parse_core_times(&read(PATH)?);
    if times.is_empty() { Err(malformed(PATH, "line of a core")) } else { Ok(times) }
}

/// The share of the time between two samples that each core was busy, 0 to 1.
pub fn core_load(before: &BTreeMap<usize, CoreTime>, after: &BTreeMap<usize, CoreTime>) -> BTreeMap<usize, f64> {
    let share = |(core, after): (&usize, &CoreTime)| {
        let before = before.get(core)?;
        let busy = after.busy.saturating_sub(before.busy);
        let all = busy + after.idle.saturating_sub(before.idle);
        Some((*core, busy as f64 / all.max(1) as f64))
    };
    after.iter().filter_map(share).collect()
}

/// Name and CPU time of a thread; in ticks of about 10 ms on a kernel without scheduler statistics.
fn thread_time(folder: &str) -> Result<(String, u64), ProbeError> {
    let name = read(&format!("{folder}/comm"))?.trim_end().to_owned();
    let precise = format!("{folder}/schedstat");
    if let Some(text) = unless_ended(read(&precise))?
        && let Some(ns) = parse_schedstat(&text)
    {
        return Ok((name, ns));
    }
    let coarse = format!("{folder}/stat");
    let ticks = parse_stat_ticks(&read(&coarse)?).ok_or_else(|| malformed(&coarse, "utime and stime"))?;
    Ok((name, ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

fn read(path: &str) -> Result<String, ProbeError> {
    fs::read_to_string(path).map_err(|error| ProbeError::Unreadable { path: path.into(), error })
}

fn malformed(path: &str, what: &'static str) -> ProbeError {
    ProbeError::Malformed { path: path.into(), what }
}

/// A missing file means that its thread or process has ended: ENOENT, or ESRCH where it was open already.
fn has_ended(error: &ProbeError) -> bool {
    let is_gone = |error: &io::Error| {
        error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
    };
    matches!(error, ProbeError::Unreadable { error, .. } if is_gone(error))
}

fn unless_ended<T>(found: Result<T, ProbeError>) -> Result<Option<T>, ProbeError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if has_ended(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names in a folder that are numbers, in order.
fn numbers_in(folder: &str) -> Result<Vec<u32>, ProbeError> {
    let unreadable = |error| ProbeError::Unreadable { path: folder.into(), error };
    let names = fs::read_dir(folder).map_err(unreadable)?.flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn holds_socket(pid: u32, inodes: &BTreeSet<u64>) -> io::Result<bool> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    let mut sockets = entries.flatten().filter_map(target).filter_map(|link| socket_inode(link.to_str()?));
    Ok(sockets.any(|inode| inodes.contains(&inode)))
}

/// Reads `socket:[12345]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether a socket that is bound to the first address is reached at the second.
fn covers(bound: SocketAddr, wanted: SocketAddr) -> bool {
    let same_address = bound.ip().to_canonical() == wanted.ip().to_canonical();
    bound.port() == wanted.port() && (bound.ip().is_unspecified() || same_address)
}

/// Addresses and inodes of the listening sockets of `/proc/net/tcp` or `tcp6`.
fn listeners(table: &str) -> impl Iterator<Item = (SocketAddr, u64)> {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = parse_address(words.nth(1)?)?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?.parse().ok()?;
        (state == LISTENING).then_some((address, inode))
    })
}

/// Reads `0100007F:2329`: the address in words of 32 bits in the byte order of this machine, the port in plain order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *chunk = word(at * 8)?;
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// The first number: ns on a core.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// User and system time of a `stat`, in clock ticks: the 14th and 15th field. The name in parentheses may contain any
/// character.
fn parse_stat_ticks(text: &str) -> Option<u64> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The field `name` of a text of lines like `VmRSS:  3000 kB`, in bytes.
fn parse_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * KIB)
}

fn parse_resident(status: &str) -> Option<u64> {
    parse_kib(status, "VmRSS")
}

fn parse_memory(rollup: &str) -> Option<ProcessMemory> {
    let field = |name: &str| parse_kib(rollup, name);
    let private = field("Private_Clean")? + field("Private_Dirty")?;
    Some(ProcessMemory { pss: field("Pss")?, private, anonymous: field("Anonymous")? })
}

/// Lines like `cpu1 user nice system idle iowait irq softirq steal guest guest_nice`. User contains
/// guest already. Stolen time is neither busy nor idle.
fn parse_core_times(text: &str) -> BTreeMap<usize, CoreTime> {
    let core = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split(' ');
        let number = words.next()?.parse().ok()?;
        let times: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, wait, interrupt, soft_interrupt, ..] = times[..] else { return None };
        Some((number, CoreTime { busy: user + nice + system + interrupt + soft_interrupt, idle: idle + wait }))
    };
    text.lines().filter_map(core).collect()
}

/// The line `Cpus_allowed_list: 0,2-3` of a `status`.
fn parse_cores(status: &str) -> Option<BTreeSet<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2329 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 34567 1 0 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 34568 1 0 100 0 0 10 0
   2: 0100007F:2329 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 34569 1 0 20 4 30 10 -1
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when \
  retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:2329 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
   00000000     0        0 777 1 0 100 0 0 10 0
";

    #[test]
    fn listeners_are_found_and_connections_are_not() {
        let all: Vec<_> = listeners(TCP).chain(listeners(TCP6)).collect();
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let expected = [("127.0.0.1:9001", 34567), ("0.0.0.0:8080", 34568), ("[::1]:9001", 777)];
        assert_eq!(all, expected.map(|(text, inode)| (address(text), inode)));
        assert!(covers(address("0.0.0.0:80"), address("127.0.0.1:80")), "all addresses");
        assert!(covers(address("[::ffff:127.0.0.1]:80"), address("127.0.0.1:80")), "the same in the longer form");
        assert!(!covers(address("127.0.0.1:80"), address("127.0.0.2:80")));
        assert!(!covers(address("0.0.0.0:80"), address("127.0.0.1:81")));
        assert_eq!(listeners("").count() + listeners("sl\n 0: junk\n").count(), 0);
        assert_eq!((socket_inode("socket:[34567]"), socket_inode("/dev/null")), (Some(34567), None));
    }

    #[test]
    fn thread_and_core_times_are_parsed() {
        assert_eq!(parse_schedstat("2938475 1234 17\n"), Some(2_938_475));
        assert_eq!(parse_schedstat(""), None);
        let stat = "12 (a (b) c) S 1 12 12 0 -1 4194560 145 0 0 0 31 11 0 0 20 0 1 0 4713 3604480 238\n";
        assert_eq!(parse_stat_ticks(stat), Some(42));
        assert_eq!(parse_stat_ticks("12 (a) S 1"), None);
        let stat = "cpu  30 0 12 300 4 0 2 9 0 0\ncpu0 10 1 5 100 2 3 1 7 0 0\ncpu1 20 0 7 200 2 0 1 2 0 0\nintr 5\n";
        let before = parse_core_times(stat);
        assert_eq!(before[&0], CoreTime { busy: 20, idle: 102 });
        assert_eq!(before.len(), 2);
        let after = BTreeMap::from([(0, CoreTime { busy: 50, idle: 112 }), (1, before[&1])]);
        assert_eq!(core_load(&before, &after), BTreeMap::from([(0, 0.75), (1, 0.0)]));
    }

    #[test]
    fn memory_and_cores_are_parsed() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:  3000 kB\nPss:   2048 kB\nPss_Anon:  9 kB\n\
                      Private_Clean:  4 kB\nPrivate_Dirty:  6 kB\nAnonymous:  5 kB\n";
        let memory = ProcessMemory { pss: 2048 * KIB, private: 10 * KIB, anonymous: 5 * KIB };
        assert_eq!(parse_memory(rollup), Some(memory));
        assert_eq!(parse_memory("Pss: 2048 kB\n"), None);
        assert_eq!(parse_resident("VmHWM:\t  9 kB\nVmRSS:\t  5 kB\n"), Some(5 * KIB));
        assert_eq!(parse_resident("VmHWM:\t  9 kB\n"), None, "a process that has ended");
        assert_eq!(parse_cores("Name:\tx\nCpus_allowed_list:\t0,2-3\n"), Some(BTreeSet::from([0, 2, 3])));
        assert_eq!(parse_cores("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_is_found_by_its_listener() {
        // No other test binds a port of this address.
        let listener = TcpListener::bind("127.0.0.79:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let process = ObservedProcess::listening_on(address).expect("it is ours");
        assert_eq!(process.pid(), std::process::id());
        let cpu = process.cpu().expect("it runs");
        assert_eq!(cpu.total_ns, cpu.by_thread.values().sum::<u64>());
        assert!(process.cpu().expect("it runs").total_ns >= cpu.total_ns && cpu.total_ns > 0);
        let memory = process.memory().expect("it is ours");
        assert!(memory.anonymous > 0 && memory.private >= memory.anonymous / 2 && memory.pss >= memory.private);
        assert!(process.resident().expect("it runs") >= memory.anonymous / 2);
        assert!(!process.cores().expect("it runs").is_empty());
        assert!(!core_times().expect("Linux reports it").is_empty());
        drop(listener);
        let error = ObservedProcess::listening_on(address).expect_err("it is closed").to_string();
        assert!(error.contains(&format!("no process on this machine listens on {address}")), "{error}");
    }

    #[test]
    fn an_ended_process_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().expect("it is there");
        child.wait().expect("it ends");
        let process = ObservedProcess::of(child.id());
        let ended = format!("process {} has ended", child.id());
        assert_eq!(process.cpu().expect_err("it has ended").to_string(), ended);
        assert_eq!(process.memory().expect_err("it has ended").to_string(), ended);
        assert_eq!(process.cores().expect_err("it has ended").to_string(), ended);
    }
}
