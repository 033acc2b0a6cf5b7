//! Each setting: its value, the wanted value, the file under `tuning/` that fixes it. A setting is named after its file.
//!
//! Three grades. *Required*: without it the server does not start, or cannot hold the connections. *Recommended*: cheap,
//! and missed as soon as many clients connect, or reconnect at once. *Optional*: useful on a dedicated machine; its lack
//! is never a fault.

use serde::Serialize;

use super::tree::{Tree, list};
use super::{Needs, Process};
use crate::config::{SLOTS_MAX, descriptors_needed};
use crate::io::uring::SetupError;

/// The state of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The machine does not have it.
    Absent,
    #[serde(rename = "ok")]
    Fine,
    /// Not as wanted, and optional.
    Optional,
    /// Not as wanted, and recommended.
    Off,
    /// Not as wanted, and required.
    Missing,
}

impl State {
    /// The word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Fine => "ok",
            Self::Optional => "optional",
            Self::Off => "off",
            Self::Missing => "missing",
        }
    }
}

/// One setting of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub setting: &'static str,
    pub state: State,
    pub found: String,
    pub wanted: String,
    /// The file that fixes it, from the root of the source; `None` where no file can.
    pub mends: Option<&'static str>,
    /// A note below the columns.
    pub note: Option<String>,
}

impl Finding {
    fn new(setting: &'static str, mends: &'static str) -> Self {
        let (found, wanted) = (String::new(), String::new());
        Self { setting, state: State::Absent, found, wanted, mends: Some(mends), note: None }
    }

    /// Sets the value found, and the state: absent without a value, `otherwise` if it is not as wanted.
    fn hold(mut self, found: Option<String>, wanted: impl Into<String>, good: bool, otherwise: State) -> Self {
        self.wanted = wanted.into();
        (self.found, self.state) = match found {
            Some(found) => (found, if good { State::Fine } else { otherwise }),
            None => ("-".to_owned(), State::Absent),
        };
        self
    }

    /// The problem, for the error of a start that it prevents.
    pub fn sentence(&self) -> String {
        let Self { setting, found, wanted, .. } = self;
        let mends = self.mends.map(|file| format!(" ('{file} apply' fixes it)")).unwrap_or_default();
        match &self.note {
            Some(note) => format!("{setting}: {note}{mends}"),
            None => format!("{setting}: {found}, wanted {wanted}{mends}"),
        }
    }
}

/// Every setting, in the order in which to fix them.
pub fn survey(tree: &Tree, process: &Process, needs: &Needs) -> Vec<Finding> {
    vec![
        kernel(tree),
        ring(tree, process),
        descriptors(process, needs),
        memlock(tree, process, needs),
        accept_queue(tree, needs),
        tcp_memory(tree, needs),
        socket_buffers(tree, needs),
        conntrack(tree, needs),
        slow_start(tree),
        huge_pages(tree),
        numa(tree),
        congestion(tree),
        notsent_lowat(tree),
        busy_poll(tree),
        governor(tree),
        cstates(tree),
        isolated_cores(tree, needs),
    ]
}

/// For `IORING_SETUP_DEFER_TASKRUN`, the newest feature that a shard uses.
const KERNEL_LEAST: (u64, u64) = (6, 1);

fn kernel(tree: &Tree) -> Finding {
    let release = tree.sysctl("kernel.osrelease");
    let version = release.as_deref().and_then(version);
    let (major, minor) = KERNEL_LEAST;
    let good = version.is_some_and(|version| version >= KERNEL_LEAST);
    // A release that does not begin with a version is ignored: the ring itself shows the kernel's features.
    let found = version.and(release);
    let finding = Finding::new("kernel", "").hold(found, format!("{major}.{minor} or newer"), good, State::Missing);
    Finding { mends: None, ..finding }
}

/// The first two numbers of a release like `6.18.44-cloud-amd64`.
fn version(release: &str) -> Option<(u64, u64)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn ring(tree: &Tree, process: &Process) -> Finding {
    let disabled = tree.number("kernel.io_uring_disabled", 0).unwrap_or(0);
    let found = match (&process.ring, disabled) {
        (Ok(()), 0) => "permitted".to_owned(),
        // For root, for example, while the server is to run as another user.
        (Ok(()), _) => format!("permitted here, kernel.io_uring_disabled is {disabled}"),
        (Err(SetupError::Forbidden(_)), _) => "forbidden".to_owned(),
        (Err(_), _) => "fails".to_owned(),
    };
    let mends = match &process.ring {
        Ok(()) | Err(SetupError::Forbidden(_)) => Some("tuning/io_uring"),
        Err(SetupError::Memory(_)) => Some("tuning/memlock"),
        Err(_) => None,
    };
    let note = process.ring.as_ref().err().map(ToString::to_string);
    let finding = Finding::new("io_uring", "").hold(Some(found), "permitted", note.is_none(), State::Missing);
    Finding { mends, note, ..finding }
}

fn descriptors(process: &Process, needs: &Needs) -> Finding {
    let least = descriptors_needed(needs.connections, needs.cores.len() as u64);
    let found = process.descriptors_max;
    let shown = if found == u64::MAX { "unlimited".to_owned() } else { found.to_string() };
    let (cores, too_many) = (needs.cores.len(), needs.slots_per_core() > SLOTS_MAX);
    let note = too_many.then(|| {
        format!(
            "a core's ring holds at most {SLOTS_MAX} connections; {} need more than {cores} cores",
            needs.connections
        )
    });
    let good = found >= least && !too_many;
    let finding = Finding::new("descriptors", "tuning/descriptors");
    Finding { note, ..finding.hold(Some(shown), format!("at least {least}"), good, State::Missing) }
}

/// Below this glommio refuses to start, whatever the capabilities.
const LOCKED_KIB_LEAST: u64 = 512;
/// Of a shard's four rings, measured on Linux 6.18 where they are counted: two shards start with 760 KiB and not with 756.
/// The margin is for the ring of this check, whose memory the kernel reclaims a little later.
const LOCKED_KIB_PER_CORE: u64 = 400;
/// The release of that measurement. Older kernels count less of a ring's memory; it is unknown since which release.
const LOCKED_RINGS_SINCE: (u64, u64) = (6, 18);

fn memlock(tree: &Tree, process: &Process, needs: &Needs) -> Finding {
    let of_rings = if process.rings_are_counted { needs.cores.len() as u64 * LOCKED_KIB_PER_CORE } else { 0 };
    let least = of_rings.max(LOCKED_KIB_LEAST);
    let found = process.locked_bytes_max.map_or(u64::MAX, |bytes| bytes / 1024);
    let newer = tree.sysctl("kernel.osrelease").as_deref().and_then(version).is_none_or(|v| v >= LOCKED_RINGS_SINCE);
    let otherwise = if found < LOCKED_KIB_LEAST || newer { State::Missing } else { State::Off };
    let shown = process.locked_bytes_max.map_or("unlimited".to_owned(), |_| format!("{found} KiB"));
    let finding = Finding::new("memlock", "tuning/memlock");
    finding.hold(Some(shown), format!("at least {least} KiB"), found >= least, otherwise)
}

/// The backlog of the server's listeners, see `http::listener`.
const BACKLOG_MAX: u64 = 65_535;

/// All clients of a core may reconnect at once; each core has a listener.
fn accept_queue(tree: &Tree, needs: &Needs) -> Finding {
    let least = needs.slots_per_core().min(BACKLOG_MAX);
    let accepted = tree.number("net.core.somaxconn", 0);
    let handshakes = tree.number("net.ipv4.tcp_max_syn_backlog", 0);
    let both = accepted.zip(handshakes);
    let found = both.map(|(accepted, handshakes)| format!("{accepted}, SYN {handshakes}"));
    let good = both.is_some_and(|(accepted, handshakes)| accepted.min(handshakes) >= least);
    Finding::new("accept_queue", "tuning/accept_queue").hold(found, format!("at least {least}"), good, State::Off)
}

/// A page each way for a connection with a queued byte, but no more than half of the machine; as in `tuning/tcp_memory`.
fn tcp_memory(tree: &Tree, needs: &Needs) -> Finding {
    let kib = tree.field("proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let half = kib.map_or(u64::MAX, |kib| kib * 1024 / rustix::param::page_size() as u64 / 2);
    let least = (needs.connections * 2).min(half);
    let found = tree.number("net.ipv4.tcp_mem", 2);
    let good = found.is_some_and(|pages| pages >= least);
    let found = found.map(|pages| format!("{pages} pages"));
    Finding::new("tcp_memory", "tuning/tcp_memory").hold(found, format!("at least {least} pages"), good, State::Off)
}

fn socket_buffers(tree: &Tree, needs: &Needs) -> Finding {
    let least = needs.send_buffer_bytes;
    let found = tree.number("net.core.wmem_max", 0);
    let good = found.is_some_and(|bytes| bytes >= least);
    let found = found.map(|bytes| format!("{bytes} bytes"));
    let finding = Finding::new("socket_buffers", "tuning/socket_buffers");
    finding.hold(found, format!("at least {least} bytes"), good, State::Off)
}

fn conntrack(tree: &Tree, needs: &Needs) -> Finding {
    let least = needs.connections;
    let tracked = tree.number("net.netfilter.nf_conntrack_count", 0);
    let most = tree.number("net.netfilter.nf_conntrack_max", 0);
    let found = tracked.zip(most).map(|(tracked, most)| match tracked {
        0 => "nothing tracked".to_owned(),
        _ => format!("{tracked} tracked of {most}"),
    });
    let good = tracked == Some(0) || most.is_some_and(|most| most >= least);
    Finding::new("conntrack", "tuning/conntrack").hold(found, format!("none, or room for {least}"), good, State::Off)
}

fn slow_start(tree: &Tree) -> Finding {
    let found = tree.sysctl("net.ipv4.tcp_slow_start_after_idle");
    let good = found.as_deref() == Some("0");
    let found = found.map(|value| if value == "0" { "not after idle".to_owned() } else { "after idle".to_owned() });
    Finding::new("slow_start", "tuning/slow_start").hold(found, "not after idle", good, State::Off)
}

fn huge_pages(tree: &Tree) -> Finding {
    let found = tree.chosen("sys/kernel/mm/transparent_hugepage/enabled");
    let good = found.as_deref() != Some("always");
    Finding::new("huge_pages", "tuning/huge_pages").hold(found, "madvise or never", good, State::Off)
}

fn numa(tree: &Tree) -> Finding {
    let nodes = tree.numbered("sys/devices/system/node", "node").len();
    let found = tree.sysctl("kernel.numa_balancing").filter(|_| nodes > 1);
    let good = found.as_deref() == Some("0");
    let found = found.map(|value| format!("{nodes} nodes, balancing {}", if value == "0" { "off" } else { "on" }));
    Finding::new("numa", "tuning/numa").hold(found, "balancing off", good, State::Off)
}

fn congestion(tree: &Tree) -> Finding {
    let found = tree.sysctl("net.ipv4.tcp_congestion_control");
    let good = found.as_deref() == Some("bbr");
    Finding::new("congestion", "tuning/congestion").hold(found, "bbr, for clients far away", good, State::Optional)
}

/// As in `tuning/notsent_lowat`.
const UNSENT_BYTES_MOST: u64 = 131_072;

fn notsent_lowat(tree: &Tree) -> Finding {
    let found = tree.number("net.ipv4.tcp_notsent_lowat", 0);
    let good = found.is_some_and(|bytes| bytes <= UNSENT_BYTES_MOST);
    let found = found.map(|bytes| match bytes {
        // The kernel's value for no limit.
        bytes if bytes >= u64::from(u32::MAX) => "unlimited".to_owned(),
        bytes => format!("{bytes} bytes"),
    });
    let wanted = format!("at most {UNSENT_BYTES_MOST} bytes");
    Finding::new("notsent_lowat", "tuning/notsent_lowat").hold(found, wanted, good, State::Optional)
}

/// µs, as in `tuning/busy_poll`.
const BUSY_READ_US: u64 = 50;

fn busy_poll(tree: &Tree) -> Finding {
    let found = tree.number("net.core.busy_read", 0);
    let good = found.is_some_and(|us| us >= BUSY_READ_US);
    let found = found.map(|us| format!("{us} µs"));
    let wanted = format!("{BUSY_READ_US} µs, for feeds on a card");
    Finding::new("busy_poll", "tuning/busy_poll").hold(found, wanted, good, State::Optional)
}

const CORES: &str = "sys/devices/system/cpu";

fn governor(tree: &Tree) -> Finding {
    let cores = tree.numbered(CORES, "cpu");
    let governor = |core: &String| tree.text(&format!("{core}/cpufreq/scaling_governor"));
    let mut governors: Vec<_> = cores.iter().filter_map(governor).collect();
    governors.sort();
    governors.dedup();
    let good = governors == ["performance"];
    let found = (!governors.is_empty()).then(|| governors.join(", "));
    Finding::new("governor", "tuning/governor").hold(found, "performance", good, State::Optional)
}

/// µs, as in `tuning/cstates`.
const WAKE_US_MOST: u64 = 20;

fn cstates(tree: &Tree) -> Finding {
    let cores = tree.numbered(CORES, "cpu");
    let states = cores.iter().flat_map(|core| tree.numbered(&format!("{core}/cpuidle"), "state"));
    let number = |path: String| tree.text(&path).and_then(|text| text.parse::<u64>().ok());
    // The longest wake-up latency of a state that a core may enter.
    let allowed = states.filter(|state| number(format!("{state}/disable")) == Some(0));
    let found = allowed.filter_map(|state| number(format!("{state}/latency"))).max();
    let good = found.is_some_and(|us| us <= WAKE_US_MOST);
    let found = found.map(|us| format!("wakes in {us} µs"));
    Finding::new("cstates", "tuning/cstates").hold(found, format!("at most {WAKE_US_MOST} µs"), good, State::Optional)
}

fn isolated_cores(tree: &Tree, needs: &Needs) -> Finding {
    let found = tree.text(&format!("{CORES}/isolated"));
    let isolated = found.as_deref().map(list).unwrap_or_default();
    let good = needs.cores.iter().all(|core| isolated.contains(core));
    let found = found.map(|cores| if cores.is_empty() { "none".to_owned() } else { cores });
    Finding::new("isolated_cores", "tuning/isolated_cores").hold(found, "the shards' cores", good, State::Optional)
}
