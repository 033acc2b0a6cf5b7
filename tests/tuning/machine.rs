//! A simulated machine in a folder, on which the scripts run.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The folder of the scripts.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning")
}

/// The scripts of single settings, sorted.
pub fn settings() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the folder is there").map(|entry| entry.expect("readable"));
    let files = entries.filter(|entry| entry.file_type().expect("a type").is_file());
    let names = files.map(|entry| entry.file_name().into_string().expect("names are ASCII"));
    let mut names: Vec<_> = names.filter(|name| !name.contains('.') && name != "profile").collect();
    names.sort();
    assert!(names.len() > 15, "{names:?}");
    names
}

/// The result of a script.
#[derive(Debug)]
pub struct ScriptOutput {
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub text: String,
}

/// A folder with `/proc`, `/sys`, `/etc` and a program.
pub struct SimulatedMachine {
    pub root: TempDir,
}

/// Every file and folder of a machine, with the bytes of the files.
pub type FileTree = BTreeMap<PathBuf, Option<Vec<u8>>>;

impl SimulatedMachine {
    pub fn empty() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    /// Four cores, two NUMA nodes, a card with two of its eight queues in use; no value is as wanted.
    pub fn untuned() -> Self {
        let machine = Self::empty();
        UNTUNED.iter().for_each(|(path, text)| machine.write(path, text));
        for core in 0..4 {
            let folder = format!("sys/devices/system/cpu/cpu{core}");
            machine.write(&format!("{folder}/cpufreq/scaling_governor"), "powersave\n");
            for (state, latency) in [(0, 0), (1, 2), (2, 133)] {
                machine.write(&format!("{folder}/cpuidle/state{state}/latency"), &format!("{latency}\n"));
                machine.write(&format!("{folder}/cpuidle/state{state}/disable"), "0\n");
            }
        }
        for (queue, interrupt) in [(0, 41), (1, 42)] {
            machine.write(&format!("proc/irq/{interrupt}/smp_affinity_list"), "0-3\n");
            machine.write(&format!("proc/irq/{interrupt}/eth0-TxRx-{queue}/spurious"), "");
            machine.write(&format!("sys/class/net/eth0/device/msi_irqs/{interrupt}"), "msix\n");
            machine.write(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "00000000,00000000\n");
            machine.write(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "00000000,00000000\n");
        }
        let program = machine.root.path().join("usr/sbin/ethtool");
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("it is ours");
        machine
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("room for it");
        std::fs::write(path, text).expect("room for it");
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn has(&self, path: &str) -> bool {
        self.root.path().join(path).exists()
    }

    pub fn command(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new(folder().join(script));
        command.args(args).env("TUNING_ROOT", self.root.path()).env_remove("TUNING_STATE");
        command
    }

    #[track_caller]
    pub fn run(&self, script: &str, args: &[&str]) -> ScriptOutput {
        run_command(self.command(script, args))
    }

    /// Runs a script, which has to exit with this code; returns its output.
    #[track_caller]
    pub fn exits_with(&self, code: i32, script: &str, args: &[&str]) -> String {
        let result = self.run(script, args);
        assert_eq!(result.code, Some(code), "{script} {args:?}: {}", result.text);
        result.text
    }

    pub fn snapshot(&self) -> FileTree {
        let mut found = FileTree::new();
        walk(self.root.path(), &mut found);
        found
    }
}

/// Asserts that two snapshots are equal.
#[track_caller]
pub fn assert_same(now: &FileTree, before: &FileTree, what: &str) {
    let paths = now.keys().chain(before.keys());
    let different: std::collections::BTreeSet<_> = paths.filter(|path| now.get(*path) != before.get(*path)).collect();
    assert!(different.is_empty(), "{what}: {different:?}");
}

#[track_caller]
pub fn run_command(mut command: Command) -> ScriptOutput {
    let output = command.output().expect("the script starts");
    let text = [output.stdout, output.stderr].concat();
    ScriptOutput { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
}

fn walk(folder: &Path, found: &mut FileTree) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            walk(&path, found);
            found.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).expect("readable");
            found.insert(path, Some(bytes));
        }
    }
}

const UNTUNED: &[(&str, &str)] = &[
    ("proc/sys/kernel/io_uring_disabled", "2\n"),
    ("proc/sys/kernel/numa_balancing", "1\n"),
    ("proc/sys/fs/nr_open", "1024\n"),
    ("proc/sys/fs/file-max", "9000\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/core/wmem_max", "212992\n"),
    ("proc/sys/net/core/rmem_max", "8388608\n"),
    ("proc/sys/net/core/busy_read", "0\n"),
    ("proc/sys/net/core/busy_poll", "0\n"),
    ("proc/sys/net/core/default_qdisc", "pfifo_fast\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
    ("proc/sys/net/ipv4/tcp_mem", "10000\t20000\t30000\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "8192\t16384\t65536\n"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "7\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            1024                 4096                 files     \n\
         Max locked memory         8388608              8388608              bytes     \n",
    ),
    ("proc/meminfo", "MemTotal:       64000000 kB\nMemFree:        60000000 kB\n"),
    ("proc/cmdline", "BOOT_IMAGE=/vmlinuz quiet\n"),
    (
        "proc/net/route",
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
         eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
         eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
    ),
    // This interrupt is not a queue's, so it is left alone.
    ("proc/irq/40/smp_affinity_list", "0-3\n"),
    ("proc/irq/40/eth0-mgmnt/spurious", ""),
    ("sys/class/net/eth0/device/msi_irqs/40", "msix\n"),
    ("sys/class/net/lo/mtu", "65536\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/isolated", "\n"),
    ("sys/devices/system/cpu/nohz_full", "(null)\n"),
    ("sys/devices/system/node/node0/cpulist", "0-1\n"),
    ("sys/devices/system/node/node1/cpulist", "2-3\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
    ("sys/kernel/mm/transparent_hugepage/defrag", "[always] defer defer+madvise madvise never\n"),
    ("etc/hostname", "made-up\n"),
    ("var/lib/other", "stays\n"),
    ("usr/sbin/combined", "2\n"),
    ("usr/sbin/adaptive-rx", "on\n"),
    ("usr/sbin/rx-usecs", "50\n"),
    ("usr/sbin/ethtool", ETHTOOL),
];

/// An ethtool whose card keeps its parameters in files beside the program.
const ETHTOOL: &str = r#"#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
case $1 in
  -l)
    printf 'Channel parameters for %s:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t8\n' "$2"
    printf 'Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t%s\n' "$(cat combined)"
    ;;
  -c)
    printf 'Coalesce parameters for %s:\nAdaptive RX: %s  TX: off\nrx-usecs-low:\tn/a\n' "$2" "$(cat adaptive-rx)"
    printf 'rx-usecs:\t%s\nrx-frames:\tn/a\n\n' "$(cat rx-usecs)"
    ;;
  -L | -C) printf '%s\n' "$4" >"$3" ;;
  *) exit 1 ;;
esac
"#;
