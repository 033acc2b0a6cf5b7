//! The scripts in `tuning/`: on made-up machines in a folder, and, where it is permitted, on the sysctls of a network
//! namespace of their own. Nothing of the machine that runs the tests is changed.

mod documents;
mod machine;
mod namespace;

use machine::{Machine, assert_same, settings};

/// A reboot is between its `apply` and its effect.
const TAKES_A_REBOOT: &str = "isolated_cores";
const STATE: &str = "var/lib/tickcast-tuning";

#[test]
fn every_setting_is_applied_is_then_as_wanted_and_is_undone_to_the_byte() {
    for setting in settings() {
        let machine = Machine::untuned();
        let before = machine.snapshot();
        machine.ends(1, &setting, &["check"]);
        assert_same(&machine.snapshot(), &before, &format!("{setting}: a check changes nothing"));
        let applied = i32::from(setting == TAKES_A_REBOOT);
        let said = machine.ends(applied, &setting, &["apply"]);
        assert!(said.contains("set "), "{setting}: {said}");
        let after = machine.snapshot();
        assert!(after != before, "{setting}: apply sets something");
        machine.ends(applied, &setting, &["check"]);
        machine.ends(applied, &setting, &["apply"]);
        assert_same(&machine.snapshot(), &after, &format!("{setting}: a second apply has nothing to do"));
        machine.ends(0, &setting, &["undo"]);
        assert_same(&machine.snapshot(), &before, &format!("{setting}: undo leaves nothing behind"));
        let said = machine.ends(0, &setting, &["undo"]);
        assert!(said.contains("nothing to undo"), "{setting}: {said}");
    }
}

#[test]
fn what_is_applied_is_what_the_setting_says() {
    let machine = Machine::untuned();
    for setting in settings() {
        machine.run(&setting, &["apply"]);
    }
    for (path, wanted) in [
        ("proc/sys/kernel/io_uring_disabled", "0\n"),
        ("proc/sys/kernel/numa_balancing", "0\n"),
        ("proc/sys/fs/nr_open", "1048576\n"),
        ("proc/sys/fs/file-max", "2097152\n"),
        ("proc/sys/net/core/somaxconn", "65535\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535\n"),
        ("proc/sys/net/ipv4/tcp_mem", "1000000 1500000 2000000\n"),
        ("proc/sys/net/core/wmem_max", "4194304\n"),
        // Of several values the larger ones stay.
        ("proc/sys/net/core/rmem_max", "8388608\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "8192 16384 4194304\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "10000 65535\n"),
        ("proc/sys/net/ipv4/tcp_congestion_control", "bbr\n"),
        ("proc/irq/40/smp_affinity_list", "0-3\n"),
        ("proc/irq/41/smp_affinity_list", "0\n"),
        ("proc/irq/42/smp_affinity_list", "1\n"),
        ("sys/class/net/eth0/queues/tx-0/xps_cpus", "00000005\n"),
        ("sys/class/net/eth0/queues/tx-1/xps_cpus", "0000000a\n"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0000000f\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ("sys/kernel/mm/transparent_hugepage/defrag", "always defer [defer+madvise] madvise never\n"),
        ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "performance\n"),
        ("sys/devices/system/cpu/cpu3/cpuidle/state1/disable", "0\n"),
        ("sys/devices/system/cpu/cpu3/cpuidle/state2/disable", "1\n"),
        ("usr/sbin/combined", "4\n"),
        ("usr/sbin/adaptive-rx", "off\n"),
        ("usr/sbin/rx-usecs", "20\n"),
    ] {
        assert_eq!(machine.read(path), wanted, "{path}");
    }
    for (path, wanted) in [
        ("etc/sysctl.d/60-tickcast-accept_queue.conf", "net.ipv4.tcp_max_syn_backlog = 65535\n"),
        ("etc/security/limits.d/60-tickcast-nofile.conf", "* - nofile 1048576\nroot - nofile 1048576\n"),
        ("etc/security/limits.d/60-tickcast-memlock.conf", "* - memlock unlimited\nroot - memlock unlimited\n"),
        (
            "etc/tmpfiles.d/tickcast-governor.conf",
            "w /sys/devices/system/cpu/cpu3/cpufreq/scaling_governor - - - - performance\n",
        ),
        (
            "etc/default/grub.d/60-tickcast.cfg",
            "isolcpus=managed_irq,domain,2-3 nohz_full=2-3 rcu_nocbs=2-3 irqaffinity=0,1\"",
        ),
    ] {
        assert!(machine.read(path).contains(wanted), "{path}: {}", machine.read(path));
    }
}

#[test]
fn a_second_apply_keeps_the_first_original() {
    let machine = Machine::untuned();
    let before = machine.snapshot();
    machine.ends(0, "accept_queue", &["apply", "5000"]);
    machine.ends(0, "descriptors", &["apply", "5000"]);
    machine.ends(1, "accept_queue", &["check", "60000"]);
    machine.ends(0, "accept_queue", &["apply", "60000"]);
    machine.ends(0, "descriptors", &["apply", "60000"]);
    assert_eq!(machine.read("proc/sys/net/core/somaxconn"), "60000\n");
    let drop_in = machine.read("etc/sysctl.d/60-tickcast-accept_queue.conf");
    assert!(drop_in.contains("somaxconn = 60000") && !drop_in.contains("5000"), "{drop_in}");
    // A reboot without the drop-in: the value is back, and what is remembered must still be the first.
    machine.write("proc/sys/net/core/somaxconn", "128\n");
    machine.ends(0, "accept_queue", &["apply", "60000"]);
    machine.ends(0, "accept_queue", &["undo"]);
    machine.ends(0, "descriptors", &["undo"]);
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn a_limit_for_logins_is_not_lowered_and_not_above_what_the_kernel_allows() {
    let machine = Machine::untuned();
    let limits = "etc/security/limits.d/60-tickcast-nofile.conf";
    machine.ends(0, "descriptors", &["apply", "60000"]);
    machine.ends(0, "descriptors", &["apply", "50000"]);
    machine.ends(0, "descriptors", &["check", "50000"]);
    machine.ends(1, "descriptors", &["check", "60001"]);
    assert!(machine.read(limits).contains("* - nofile 60000\n"));
    machine.ends(0, "memlock", &["apply"]);
    machine.ends(0, "memlock", &["apply", "16384"]);
    assert!(machine.read("etc/security/limits.d/60-tickcast-memlock.conf").contains("unlimited"));
    // What could not be written is not said to be so.
    let machine = Machine::untuned();
    std::fs::create_dir_all(machine.root.path().join(limits)).expect("room for it");
    let said = machine.ends(2, "descriptors", &["apply"]);
    assert!(said.contains("cannot be written") && !said.contains("next login"), "{said}");
    // A login with more than fs.nr_open would be refused.
    let machine = Machine::untuned();
    std::fs::remove_file(machine.root.path().join("proc/sys/fs/nr_open")).expect("it is there");
    let said = machine.ends(0, "descriptors", &["apply"]);
    assert!(said.contains("nofile is left alone") && !machine.has(limits), "{said}");
}

#[test]
fn a_line_of_the_drop_in_stays_where_a_later_apply_sets_another() {
    let machine = Machine::untuned();
    machine.ends(0, "accept_queue", &["apply"]);
    machine.write("proc/sys/net/core/somaxconn", "128\n");
    machine.ends(0, "accept_queue", &["apply"]);
    let drop_in = machine.read("etc/sysctl.d/60-tickcast-accept_queue.conf");
    for line in ["net.core.somaxconn = 65535\n", "net.ipv4.tcp_max_syn_backlog = 65535\n"] {
        assert_eq!(drop_in.matches(line).count(), 1, "{drop_in}");
    }
}

#[test]
fn a_file_that_was_there_before_comes_back() {
    let machine = Machine::untuned();
    machine.write("etc/sysctl.d/60-tickcast-ports.conf", "# of an administrator, without a line's end");
    machine.write("etc/default/grub.d/60-tickcast.cfg", "");
    let before = machine.snapshot();
    machine.ends(0, "ports", &["apply"]);
    machine.ends(1, "isolated_cores", &["apply"]);
    machine.ends(1, "isolated_cores", &["apply", "3"]);
    machine.ends(0, "isolated_cores", &["undo"]);
    machine.ends(0, "ports", &["undo"]);
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn what_is_better_already_is_left_alone() {
    let machine = Machine::untuned();
    for (path, text) in [
        ("proc/sys/kernel/io_uring_disabled", "0\n"),
        ("proc/sys/kernel/numa_balancing", "0\n"),
        ("proc/sys/fs/nr_open", "1073741816\n"),
        ("proc/sys/fs/file-max", "9223372036854775807\n"),
        ("proc/sys/net/core/somaxconn", "100000\n"),
        ("proc/sys/net/core/wmem_max", "67108864\n"),
        ("proc/sys/net/core/busy_read", "70\n"),
        ("proc/sys/net/core/busy_poll", "70\n"),
        ("proc/sys/net/core/default_qdisc", "fq\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "100000\n"),
        ("proc/sys/net/ipv4/tcp_mem", "4000000\t5000000\t6000000\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t67108864\n"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0\n"),
        ("proc/sys/net/ipv4/tcp_congestion_control", "bbr\n"),
        ("proc/sys/net/ipv4/tcp_notsent_lowat", "16384\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "4000000\n"),
        ("proc/irq/41/smp_affinity_list", "0\n"),
        ("proc/irq/42/smp_affinity_list", "1\n"),
        (
            "proc/self/limits",
            "Max open files            1024                 2000000              files     \n\
             Max locked memory         unlimited            unlimited            bytes     \n",
        ),
        ("proc/cmdline", "quiet rcu_nocbs=1-3\n"),
        ("sys/devices/system/cpu/isolated", "1-3\n"),
        ("sys/devices/system/cpu/nohz_full", "2-3\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
        ("sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never\n"),
        ("sys/class/net/eth0/queues/tx-0/xps_cpus", "5\n"),
        ("sys/class/net/eth0/queues/tx-1/xps_cpus", "00000000,0000000a\n"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "f\n"),
        ("sys/class/net/eth0/queues/rx-1/rps_cpus", "f\n"),
        ("usr/sbin/combined", "8\n"),
        ("usr/sbin/adaptive-rx", "off\n"),
        ("usr/sbin/rx-usecs", "3\n"),
    ] {
        machine.write(path, text);
    }
    for core in 0..4 {
        let folder = format!("sys/devices/system/cpu/cpu{core}");
        machine.write(&format!("{folder}/cpufreq/scaling_governor"), "performance\n");
        machine.write(&format!("{folder}/cpuidle/state2/disable"), "1\n");
    }
    let before = machine.snapshot();
    for setting in settings() {
        machine.ends(0, &setting, &["check"]);
        machine.ends(0, &setting, &["apply"]);
        machine.ends(0, &setting, &["undo"]);
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn what_a_machine_does_not_have_is_not_applicable_and_nothing_is_written() {
    let machine = Machine::empty();
    let before = machine.snapshot();
    for setting in settings() {
        for verb in ["check", "apply"] {
            let said = machine.ends(3, &setting, &[verb]);
            assert!(
                said.contains("not applicable here")
                    || said.contains("is not there, or cannot be read")
                    || said.contains("is not in"),
                "{said}"
            );
        }
        machine.ends(0, &setting, &["undo"]);
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn what_cannot_be_read_does_not_keep_the_rest_from_being_set() {
    let machine = Machine::untuned();
    let path = machine.root.path().join("proc/sys/net/core/somaxconn");
    std::fs::remove_file(&path).expect("it is there");
    std::fs::create_dir(&path).expect("room for it");
    let said = machine.ends(0, "accept_queue", &["apply"]);
    assert!(said.contains("net.core.somaxconn is not there, or cannot be read"), "{said}");
    assert_eq!(machine.read("proc/sys/net/ipv4/tcp_max_syn_backlog"), "65535\n");
}

#[test]
fn without_hardware_the_scripts_for_a_card_are_not_applicable() {
    let machine = Machine::untuned();
    for setting in ["queues", "steering", "irq_affinity", "coalescing"] {
        machine.ends(3, setting, &["check", "lo"]);
        let said = machine.ends(2, setting, &["check", "eth7"]);
        assert!(said.contains("no interface eth7"), "{said}");
    }
    machine.ends(2, "irq_affinity", &["check", "eth0", "first"]);
    machine.ends(2, "queues", &["check", "eth0", "many"]);
    std::fs::remove_file(machine.root.path().join("usr/sbin/ethtool")).expect("it is there");
    for setting in ["queues", "coalescing"] {
        let said = machine.ends(3, setting, &["apply"]);
        assert!(said.contains("ethtool is not installed"), "{said}");
    }
}

#[test]
fn an_interface_is_found_by_a_default_route_of_the_new_protocol_as_well() {
    let machine = Machine::untuned();
    machine.write("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n");
    machine.ends(3, "queues", &["check"]);
    let (none, all) = ("0".repeat(32), "f".repeat(32));
    let route = |to: &str, bits: &str, name: &str| {
        format!("{to} {bits} {none} 00 {none} 00000400 00000001 00000000 00000001 {name:>8}\n")
    };
    let text = [route(&none, "00", "lo"), route(&all, "80", "eth9"), route(&none, "00", "eth0")].concat();
    machine.write("proc/net/ipv6_route", &text);
    assert!(machine.ends(1, "queues", &["check"]).contains("eth0"));
}

#[test]
fn cores_can_be_named() {
    let machine = Machine::untuned();
    assert!(!machine.ends(0, "irq_affinity", &["apply", "eth0", "3,0-1"]).contains("irqbalance"));
    machine.write("proc/17/comm", "irqbalance\n");
    assert!(machine.ends(0, "irq_affinity", &["check", "eth0", "3,0-1"]).contains("irqbalance is running"));
    assert_eq!(machine.read("proc/irq/41/smp_affinity_list"), "3\n");
    assert_eq!(machine.read("proc/irq/42/smp_affinity_list"), "0\n");
    let said = machine.ends(2, "isolated_cores", &["apply", "0-3"]);
    assert!(said.contains("leaves no core"), "{said}");
    machine.ends(2, "isolated_cores", &["apply", "some"]);
    machine.write("sys/devices/system/cpu/online", "0-2\n");
    machine.ends(3, "isolated_cores", &["apply"]);
    machine.ends(1, "isolated_cores", &["apply", "2"]);
    machine.write("sys/devices/system/cpu/isolated", "2\n");
    machine.write("sys/devices/system/cpu/nohz_full", "2\n");
    machine.ends(1, "isolated_cores", &["check", "2"]);
    machine.write("proc/cmdline", "quiet isolcpus=managed_irq,domain,2 nohz_full=2 rcu_nocbs=2\n");
    machine.ends(0, "isolated_cores", &["check", "2"]);
}

#[test]
fn masks_of_many_cores_are_in_groups() {
    let machine = Machine::untuned();
    machine.write("sys/devices/system/cpu/online", "0,31-33,95\n");
    machine.ends(0, "steering", &["apply"]);
    assert_eq!(machine.read("sys/class/net/eth0/queues/tx-0/xps_cpus"), "80000000,00000001,00000001\n");
    assert_eq!(machine.read("sys/class/net/eth0/queues/tx-1/xps_cpus"), "00000002,80000000\n");
}

#[test]
fn memory_for_tcp_is_at_most_half_of_the_machine() {
    let machine = Machine::untuned();
    machine.write("proc/meminfo", "MemTotal:        4096000 kB\n");
    machine.ends(0, "tcp_memory", &["apply"]);
    let half = 4_096_000 * 1024 / rustix::param::page_size() / 2;
    assert_eq!(machine.read("proc/sys/net/ipv4/tcp_mem"), format!("{} {} {half}\n", half / 2, half * 3 / 4));
}

#[test]
fn a_verb_or_argument_that_is_none_is_refused_with_what_there_is() {
    let machine = Machine::untuned();
    let before = machine.snapshot();
    for setting in settings() {
        let said = machine.ends(2, &setting, &["aply"]);
        assert!(said.contains("aply is not a verb; have check, apply, undo"), "{said}");
        assert!(said.contains(&format!("tuning/{setting} check|apply|undo")), "{said}");
        assert!(machine.ends(2, &setting, &[]).contains("check|apply|undo"), "{setting}");
        assert!(machine.ends(0, &setting, &["help"]).contains("Why "), "{setting}");
    }
    for setting in ["descriptors", "memlock", "accept_queue", "tcp_memory", "notsent_lowat", "cstates", "conntrack"] {
        for argument in ["many", "0", "-1", "1.5", "99999999999999999999"] {
            let said = machine.ends(2, setting, &["apply", argument]);
            assert!(said.contains("is not a whole number above 0"), "{setting} {argument}: {said}");
        }
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn where_nothing_can_be_remembered_nothing_is_changed() {
    let machine = Machine::untuned();
    let before = machine.snapshot();
    for setting in settings() {
        let mut command = machine.command(&setting, &["apply"]);
        command.env("TUNING_STATE", machine.root.path().join("etc/hostname"));
        let ended = machine::ended(command);
        assert_eq!(ended.code, Some(2), "{setting}: {}", ended.text);
        assert!(ended.text.contains("need root"), "{setting}: {}", ended.text);
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn what_has_gone_meanwhile_does_not_keep_the_rest_from_being_undone() {
    let machine = Machine::untuned();
    machine.ends(0, "governor", &["apply"]);
    let core = machine.root.path().join("sys/devices/system/cpu/cpu2");
    std::fs::remove_dir_all(core).expect("it is there");
    let said = machine.ends(0, "governor", &["undo"]);
    assert!(said.contains("is no longer there"), "{said}");
    assert_eq!(machine.read("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"), "powersave\n");
}

#[test]
fn a_profile_is_applied_in_order_and_undone_backwards() {
    for profile in documents::profiles() {
        let machine = Machine::untuned();
        let before = machine.snapshot();
        let said = machine.ends(1, "profile", &["check", &profile]);
        assert!(said.contains("0 as wanted") && said.contains("0 failed"), "{said}");
        // The one setting that takes a reboot stands in the profile for a machine of its own.
        let reboots = said.contains(TAKES_A_REBOOT);
        machine.ends(i32::from(reboots), "profile", &["apply", &profile]);
        machine.ends(i32::from(reboots), "profile", &["check", &profile]);
        assert!(machine.has(STATE), "{profile}");
        machine.ends(0, "profile", &["undo", &profile]);
        assert_same(&machine.snapshot(), &before, &profile);
        machine.ends(i32::from(reboots), "profile", &["apply", &profile]);
        machine.ends(0, "profile", &["undo", "all"]);
        assert_same(&machine.snapshot(), &before, &profile);
    }
    let machine = Machine::empty();
    machine.ends(3, "profile", &["check", "server"]);
    for args in [&["check"][..], &["check", "all"], &["check", "../profile"], &["tune", "server"], &[]] {
        assert!(machine.ends(2, "profile", args).contains("tuning/profile check|apply|undo NAME"), "{args:?}");
    }
}
