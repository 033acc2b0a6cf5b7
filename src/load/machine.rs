//! What very many connections need of this machine: descriptors, ports, source addresses.

use std::net::{IpAddr, Ipv4Addr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::load::error::LoadError;

/// Descriptors that a process has open beside its connections: standard streams, epoll, resolver, log.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Makes `connections` descriptors available: raises the soft limit as far as the hard one allows.
pub fn ensure_descriptors(connections: u64) -> Result<(), LoadError> {
    let limit = getrlimit(Resource::Nofile);
    let need = connections + DESCRIPTORS_BESIDE;
    match descriptors(need, limit.current, limit.maximum) {
        Descriptors::Enough => Ok(()),
        Descriptors::Raise => setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum: limit.maximum })
            .map_err(|_| LoadError::Descriptors { need, have: limit.current.unwrap_or(u64::MAX) }),
        Descriptors::Short { have } => Err(LoadError::Descriptors { need, have }),
    }
}

/// The most connections that [`ensure_descriptors`] can grant.
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.map_or(u64::MAX, |max| max.saturating_sub(DESCRIPTORS_BESIDE))
}

/// Whether the limit of open descriptors is high enough.
#[derive(Debug, PartialEq, Eq)]
enum Descriptors {
    Enough,
    Raise,
    Short { have: u64 },
}

/// `None` is "unlimited".
fn descriptors(need: u64, soft: Option<u64>, hard: Option<u64>) -> Descriptors {
    match (soft, hard) {
        (None, _) => Descriptors::Enough,
        (Some(soft), _) if soft >= need => Descriptors::Enough,
        (_, Some(hard)) if hard < need => Descriptors::Short { have: hard },
        _ => Descriptors::Raise,
    }
}

/// Source addresses, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(pub Vec<IpAddr>);

/// The source addresses for so many connections: the given ones; or, where the server is on this machine and one
/// address does not have enough ports, as many of 127.0.0.0/8 as are needed. Empty where the kernel is to choose.
pub fn sources_for(connections: u64, given: &[IpAddr], server: IpAddr) -> Result<Vec<IpAddr>, LoadError> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    sources(connections, given, server, ports_of(&range))
}

fn sources(connections: u64, given: &[IpAddr], server: IpAddr, ports_each: u64) -> Result<Vec<IpAddr>, LoadError> {
    // Some ports are in use or in TIME_WAIT: an address counts with four fifths of its ports.
    let comfortable = (ports_each * 4 / 5).max(1);
    let spreads = given.is_empty() && server.is_ipv4() && server.is_loopback() && connections > comfortable;
    if spreads {
        // Everything else on this machine uses the ports of 127.0.0.1.
        let count = u32::try_from(connections.div_ceil(comfortable)).unwrap_or(u32::MAX).min(1 << 20);
        return Ok((0..count).map(|nth| IpAddr::from((0x7f00_0002 + nth).to_be_bytes())).collect());
    }
    ports(connections, given.len().max(1) as u64, ports_each).map(|()| given.to_vec())
}

/// Reads `127.0.0.1,127.0.0.4-9`: the last number of an IPv4 address may be a range.
pub fn parse_sources(text: &str) -> Result<Sources, String> {
    let mut sources = Vec::new();
    for part in text.split(',').map(str::trim) {
        let bad = || format!("invalid value {part:?}: expected IP addresses or ranges such as 127.0.0.4-9");
        match part.split_once('-') {
            None => sources.push(part.parse().map_err(|_| bad())?),
            Some((first, last)) => {
                let first: Ipv4Addr = first.parse().map_err(|_| bad())?;
                let [a, b, c, from] = first.octets();
                let to: u8 = last.parse().ok().filter(|to| *to >= from).ok_or_else(bad)?;
                sources.extend((from..=to).map(|d| IpAddr::from([a, b, c, d])));
            }
        }
    }
    Ok(Sources(sources))
}

/// The size of the range `"32768\t60999"`; that of the kernel's default where it cannot be read.
fn ports_of(range: &str) -> u64 {
    let mut bounds = range.split_whitespace().map(str::parse::<u64>);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(low)), Some(Ok(high))) if high >= low => high - low + 1,
        _ => 28_232,
    }
}

fn ports(connections: u64, sources: u64, ports_each: u64) -> Result<(), LoadError> {
    let enough = connections <= sources * ports_each;
    let need = connections.div_ceil(ports_each.max(1));
    if enough { Ok(()) } else { Err(LoadError::Ports { connections, ports: sources * ports_each, sources: need }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_limits_are_raised_up_to_the_hard_limit() {
        assert_eq!(descriptors(100, Some(100), Some(100)), Descriptors::Enough);
        assert_eq!(descriptors(101, None, None), Descriptors::Enough);
        assert_eq!(descriptors(101, Some(100), Some(101)), Descriptors::Raise);
        assert_eq!(descriptors(101, Some(100), None), Descriptors::Raise);
        assert_eq!(descriptors(102, Some(100), Some(101)), Descriptors::Short { have: 101 });
        let error = LoadError::Descriptors { need: 102, have: 101 }.to_string();
        assert!(error.contains("sudo prlimit --pid $$ --nofile=102:102"), "{error}");
    }

    #[test]
    fn a_local_server_gets_as_many_source_addresses_as_needed() {
        let home = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(sources(800, &[], home, 1000).expect("enough"), Vec::<IpAddr>::new());
        let spread = sources(2000, &[], home, 1000).expect("loopback has many");
        assert_eq!(spread, [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]].map(IpAddr::from));
        assert!(sources(2000, &[], IpAddr::from([10, 0, 0, 1]), 1000).is_err());
        assert!(sources(2000, &[home], home, 1000).is_err(), "what was given is what is used");
    }

    #[test]
    fn source_ranges_are_parsed() {
        let sources = parse_sources("127.0.0.1,127.0.0.4-6,::1").expect("addresses").0;
        let want = ["127.0.0.1", "127.0.0.4", "127.0.0.5", "127.0.0.6", "::1"];
        assert_eq!(sources.iter().map(IpAddr::to_string).collect::<Vec<_>>(), want);
        for bad in ["", "localhost", "127.0.0.4-2", "127.0.0.4-", "::1-4", "127.0.0.1-256"] {
            assert!(parse_sources(bad).expect_err(bad).contains("expected IP addresses"), "{bad}");
        }
    }

    #[test]
    fn too_few_ports_name_the_flag_to_use() {
        assert_eq!(ports_of("32768\t60999\n"), 28_232);
        assert_eq!(ports_of(""), 28_232);
        assert!(ports(28_232, 1, 28_232).is_ok());
        let error = ports(60_000, 2, 28_232).expect_err("too few").to_string();
        assert!(error.contains("3 source addresses") && error.contains("--source"), "{error}");
    }
}
