use std::io;
use std::path::Path;

use tempfile::TempDir;

use super::settings::{Finding, State};
use super::{Needs, Process, Survey, report};
use crate::io::uring::SetupError;

/// A simulated machine.
struct Machine {
    root: TempDir,
    process: Process,
    needs: Needs,
}

impl Machine {
    fn empty() -> Self {
        let process =
            Process { descriptors_max: 1_048_576, locked_bytes_max: None, rings_are_counted: true, ring: Ok(()) };
        let needs = Needs { connections: 200_000, cores: vec![2, 3], send_buffer_bytes: 262_144 };
        Self { root: tempfile::tempdir().expect("a directory"), process, needs }
    }

    /// Everything as wanted for 100,000 connections on each of two cores.
    fn tuned() -> Self {
        let machine = Self::empty();
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.12.0-cloud-amd64"),
            ("proc/sys/kernel/io_uring_disabled", "0"),
            ("proc/sys/kernel/numa_balancing", "0"),
            ("proc/meminfo", "MemTotal:       64000000 kB\nMemFree:         1000000 kB"),
            ("proc/sys/net/core/somaxconn", "65535"),
            ("proc/sys/net/core/wmem_max", "262144"),
            ("proc/sys/net/core/busy_read", "50"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535"),
            ("proc/sys/net/ipv4/tcp_mem", "200000\t300000\t400000"),
            ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0"),
            ("proc/sys/net/ipv4/tcp_congestion_control", "bbr"),
            ("proc/sys/net/ipv4/tcp_notsent_lowat", "131072"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "5000"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "200000"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
            ("sys/devices/system/node/node0/cpulist", "0-1"),
            ("sys/devices/system/node/node1/cpulist", "2-3"),
            ("sys/devices/system/cpu/isolated", "2-3"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
            ("sys/devices/system/cpu/cpu10/cpufreq/scaling_governor", "performance"),
            ("sys/devices/system/cpu/cpu0/cpuidle/state1/latency", "20"),
            ("sys/devices/system/cpu/cpu0/cpuidle/state1/disable", "0"),
            ("sys/devices/system/cpu/cpu0/cpuidle/state2/latency", "150"),
            ("sys/devices/system/cpu/cpu0/cpuidle/state2/disable", "1"),
        ] {
            machine.write(path, text);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("written");
        std::fs::write(path, format!("{text}\n")).expect("written");
    }

    fn survey(&self) -> Survey {
        let process = Process { ring: Ok(()), ..self.process };
        Survey::of(self.root.path(), &process, self.needs.clone())
    }

    #[track_caller]
    fn finding(&self, setting: &str) -> Finding {
        found(&self.survey(), setting)
    }
}

#[track_caller]
fn found(survey: &Survey, setting: &str) -> Finding {
    survey.findings.iter().find(|finding| finding.setting == setting).expect("a setting of that name").clone()
}

#[test]
fn tuned_machine_has_no_fault() {
    let survey = Machine::tuned().survey();
    for finding in &survey.findings {
        assert_eq!(finding.state, State::Fine, "{finding:?}");
    }
    assert_eq!((survey.state(), survey.exit_code()), (State::Fine, 0));
    assert!(survey.refusal().is_ok() && survey.warning().is_none());
}

#[test]
fn absent_settings_are_no_fault() {
    let survey = Machine::empty().survey();
    for finding in &survey.findings {
        let of_process = ["io_uring", "descriptors", "memlock"].contains(&finding.setting);
        assert_eq!(finding.state, if of_process { State::Fine } else { State::Absent }, "{finding:?}");
    }
    assert_eq!(survey.exit_code(), 0);
}

#[test]
fn each_setting_that_is_off_is_found_with_its_grade() {
    for (path, text, setting, state, shown) in [
        ("proc/sys/kernel/osrelease", "5.15.0-91-generic", "kernel", State::Missing, "5.15.0-91-generic"),
        ("proc/sys/kernel/osrelease", "6.0.19", "kernel", State::Missing, "6.0.19"),
        ("proc/sys/net/core/somaxconn", "4096", "accept_queue", State::Off, "4096, SYN 65535"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048", "accept_queue", State::Off, "65535, SYN 2048"),
        ("proc/sys/net/ipv4/tcp_mem", "200000 300000 399999", "tcp_memory", State::Off, "399999 pages"),
        ("proc/sys/net/core/wmem_max", "212992", "socket_buffers", State::Off, "212992 bytes"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "199999", "conntrack", State::Off, "5000 tracked of 199999"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1", "slow_start", State::Off, "after idle"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never", "huge_pages", State::Off, "always"),
        ("proc/sys/kernel/numa_balancing", "1", "numa", State::Off, "2 nodes, balancing on"),
        ("proc/sys/net/ipv4/tcp_congestion_control", "cubic", "congestion", State::Optional, "cubic"),
        ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295", "notsent_lowat", State::Optional, "unlimited"),
        ("proc/sys/net/core/busy_read", "0", "busy_poll", State::Optional, "0 µs"),
        (
            "sys/devices/system/cpu/cpu10/cpufreq/scaling_governor",
            "powersave",
            "governor",
            State::Optional,
            "performance, powersave",
        ),
        ("sys/devices/system/cpu/cpu0/cpuidle/state2/disable", "0", "cstates", State::Optional, "wakes in 150 µs"),
        ("sys/devices/system/cpu/isolated", "3", "isolated_cores", State::Optional, "3"),
        ("sys/devices/system/cpu/isolated", "", "isolated_cores", State::Optional, "none"),
    ] {
        let machine = Machine::tuned();
        machine.write(path, text);
        let finding = machine.finding(setting);
        assert_eq!((finding.state, finding.found.as_str()), (state, shown), "{path} = {text}: {finding:?}");
        let code = match state {
            State::Missing => 3,
            State::Off => 1,
            _ => 0,
        };
        assert_eq!(machine.survey().exit_code(), code, "{path} = {text}");
        assert_eq!(machine.survey().refusal().is_err(), code == 3, "{path} = {text}");
        assert_eq!(machine.survey().warning().is_some_and(|line| line.contains(setting)), code == 1, "{path} = {text}");
    }
}

#[test]
fn wanted_values_follow_from_the_connections() {
    let mut machine = Machine::tuned();
    machine.needs.connections = 100;
    assert_eq!(machine.finding("accept_queue").wanted, "at least 50");
    assert_eq!(machine.finding("tcp_memory").wanted, "at least 200 pages");
    assert_eq!(machine.finding("descriptors").wanted, "at least 550");
    machine.needs.connections = 1_000_000;
    assert_eq!(machine.finding("accept_queue").wanted, "at least 65535", "the greatest backlog of the server");
    assert_eq!(machine.finding("tcp_memory").state, State::Off);
    assert_eq!(machine.finding("conntrack").state, State::Off);
    machine.write("proc/meminfo", "MemTotal: 2048000 kB");
    let half = 2_048_000 * 1024 / rustix::param::page_size() / 2;
    assert_eq!(machine.finding("tcp_memory").wanted, format!("at least {half} pages"));
    machine.write("proc/sys/net/netfilter/nf_conntrack_count", "0");
    assert_eq!(machine.finding("conntrack").state, State::Fine, "without tracking no table fills up");
}

#[test]
fn descriptors_are_needed_for_the_slots_of_one_core() {
    let mut machine = Machine::tuned();
    machine.process.descriptors_max = 100_500;
    assert_eq!(machine.finding("descriptors").state, State::Fine);
    machine.process.descriptors_max = 100_499;
    assert_eq!(machine.finding("descriptors").state, State::Missing);
    let error = machine.survey().refusal().expect_err("too few").to_string();
    assert!(error.contains("100499, wanted at least 100500") && error.contains("tuning/descriptors"), "{error}");
    machine.process.descriptors_max = u64::MAX;
    assert_eq!(machine.finding("descriptors").found, "unlimited");
    machine.needs.connections = (2 << 20) + 1;
    let finding = machine.finding("descriptors");
    assert_eq!(finding.state, State::Missing, "a higher limit does not help");
    assert!(finding.note.is_some_and(|note| note.contains("more than 2 cores")));
}

#[test]
fn locked_memory_grows_with_cores_without_cap_ipc_lock() {
    let mut machine = Machine::tuned();
    machine.needs.cores = (0..16).collect();
    machine.process.locked_bytes_max = Some(2 << 20);
    assert_eq!(machine.finding("memlock").state, State::Off, "an older kernel may count less");
    machine.write("proc/sys/kernel/osrelease", "6.18.0");
    assert_eq!(machine.finding("memlock").state, State::Missing);
    machine.process.locked_bytes_max = Some(8 << 20);
    assert_eq!(machine.finding("memlock").state, State::Fine, "the usual 8 MiB suffice for 16 cores");
    machine.process.locked_bytes_max = Some(512 << 10);
    machine.process.rings_are_counted = false;
    assert_eq!(machine.finding("memlock").state, State::Fine, "any amount may be locked");
    machine.process.locked_bytes_max = Some((512 << 10) - 1);
    assert_eq!(machine.finding("memlock").state, State::Missing, "glommio's own bound always holds");
}

#[test]
fn ring_error_of_the_kernel_is_explained() {
    let machine = Machine::tuned();
    let refused = |error: SetupError| {
        let process = Process { ring: Err(error), ..machine.process };
        let survey = Survey::of(machine.root.path(), &process, machine.needs.clone());
        assert_eq!(survey.exit_code(), 3);
        (found(&survey, "io_uring"), survey.refusal().expect_err("there is no ring").to_string())
    };
    let (finding, error) = refused(SetupError::Forbidden(io::ErrorKind::PermissionDenied.into()));
    assert_eq!((finding.found.as_str(), finding.mends), ("forbidden", Some("tuning/io_uring")));
    assert!(error.contains("seccomp"), "{error}");
    let (finding, _) = refused(SetupError::Memory(io::ErrorKind::OutOfMemory.into()));
    assert_eq!((finding.found.as_str(), finding.mends), ("fails", Some("tuning/memlock")));
    let (finding, error) = refused(SetupError::Missing(io::ErrorKind::Unsupported.into()));
    assert_eq!(finding.mends, None);
    assert!(error.contains("6.1 or newer"), "{error}");
    machine.write("proc/sys/kernel/io_uring_disabled", "1");
    assert_eq!(machine.finding("io_uring").found, "permitted here, kernel.io_uring_disabled is 1");
}

#[test]
fn files_of_unknown_form_are_no_fault() {
    let machine = Machine::tuned();
    for path in [
        "proc/sys/kernel/osrelease",
        "proc/sys/net/core/somaxconn",
        "proc/sys/net/ipv4/tcp_mem",
        "sys/kernel/mm/transparent_hugepage/enabled",
        "proc/meminfo",
    ] {
        machine.write(path, "unknown form");
    }
    let survey = machine.survey();
    for setting in ["kernel", "accept_queue", "tcp_memory", "huge_pages"] {
        assert_eq!(found(&survey, setting).state, State::Absent, "{setting}");
    }
}

#[test]
fn every_named_file_exists_and_has_the_name_of_its_setting() {
    for finding in Machine::tuned().survey().findings {
        let Some(mends) = finding.mends else { continue };
        assert_eq!(mends, format!("tuning/{}", finding.setting));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(mends);
        assert!(path.is_file(), "{mends} does not exist");
    }
}

#[test]
fn lines_are_aligned_and_end_with_the_totals() {
    let mut machine = Machine::tuned();
    machine.write("proc/sys/net/core/busy_read", "0");
    machine.write("proc/sys/net/core/somaxconn", "128");
    machine.process.descriptors_max = 1024;
    let text = report::lines(&machine.survey());
    let column = |line: &str, word: &str| line.find(word).map(|at| line[..at].chars().count());
    let lines: Vec<_> = text.lines().collect();
    let wanted = column(lines[0], "wanted").expect("a head");
    for line in lines.iter().filter(|line| line.contains("at least")) {
        assert_eq!(column(line, "at least"), Some(wanted), "{text}");
    }
    assert!(
        lines.iter().any(|line| line.starts_with("missing   descriptors ") && line.ends_with("tuning/descriptors"))
    );
    assert!(lines.iter().any(|line| line.starts_with("ok        slow_start ") && line.ends_with("not after idle")));
    let sum = "for 200000 connections on 2 cores: 1 required missing, 1 recommended off, 1 optional off";
    assert_eq!(lines.last(), Some(&sum));
}

#[test]
fn json_is_one_object_with_every_setting() {
    let machine = Machine::tuned();
    machine.write("proc/sys/net/core/somaxconn", "128");
    let text = report::json(&machine.survey());
    assert_eq!(text.lines().count(), 1);
    let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&object["state"], &object["exit_code"]), (&"off".into(), &1.into()));
    assert_eq!((&object["connections"], &object["cores"]), (&200_000.into(), &serde_json::json!([2, 3])));
    let settings = object["settings"].as_array().expect("a list");
    let of = |name: &str| settings.iter().find(|setting| setting["setting"] == name).expect("it is there");
    assert_eq!(of("accept_queue")["state"], "off");
    assert_eq!(of("accept_queue")["mends"], "tuning/accept_queue");
    assert_eq!(of("descriptors")["state"], "ok");
    assert!(of("kernel")["mends"].is_null());
}
