//! The scripts in `tuning/`: on simulated machines in a folder and, if that is permitted, on the sysctls of a separate
//! network namespace. The machine that runs the tests is not changed.

mod documents;
mod machine;
mod namespace;

use machine::{SimulatedMachine, assert_same, settings};

/// It takes effect only after a reboot.
const TAKES_A_REBOOT: &str = "isolated_cores";
const STATE: &str = "var/lib/tickcast-tuning";

#[test]
fn every_setting_is_applied_and_undone_to_the_byte() {
    for setting in settings() {
        let machine = SimulatedMachine::untuned();
        let before = machine.snapshot();
        machine.exits_with(1, &setting, &["check"]);
        assert_same(&machine.snapshot(), &before, &format!("{setting}: a check changes nothing"));
        let applied = i32::from(setting == TAKES_A_REBOOT);
        let output = machine.exits_with(applied, &setting, &["apply"]);
        assert!(output.contains("set "), "{setting}: {output}");
        let after = machine.snapshot();
        assert!(after != before, "{setting}: apply sets something");
        machine.exits_with(applied, &setting, &["check"]);
        machine.exits_with(applied, &setting, &["apply"]);
        assert_same(&machine.snapshot(), &after, &format!("{setting}: a second apply has nothing to do"));
        machine.exits_with(0, &setting, &["undo"]);
        assert_same(&machine.snapshot(), &before, &format!("{setting}: undo leaves nothing behind"));
        let output = machine.exits_with(0, &setting, &["undo"]);
        assert!(output.contains("nothing to undo"), "{setting}: {output}");
    }
}

#[test]
fn settings_apply_the_documented_values() {
    let machine = SimulatedMachine::untuned();
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
        // Larger values stay.
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
    let machine = SimulatedMachine::untuned();
    let before = machine.snapshot();
    machine.exits_with(0, "accept_queue", &["apply", "5000"]);
    machine.exits_with(0, "descriptors", &["apply", "5000"]);
    machine.exits_with(1, "accept_queue", &["check", "60000"]);
    machine.exits_with(0, "accept_queue", &["apply", "60000"]);
    machine.exits_with(0, "descriptors", &["apply", "60000"]);
    assert_eq!(machine.read("proc/sys/net/core/somaxconn"), "60000\n");
    let drop_in = machine.read("etc/sysctl.d/60-tickcast-accept_queue.conf");
    assert!(drop_in.contains("somaxconn = 60000") && !drop_in.contains("5000"), "{drop_in}");
    // A reboot without the drop-in: the old value is back, and the saved value must still be the first.
    machine.write("proc/sys/net/core/somaxconn", "128\n");
    machine.exits_with(0, "accept_queue", &["apply", "60000"]);
    machine.exits_with(0, "accept_queue", &["undo"]);
    machine.exits_with(0, "descriptors", &["undo"]);
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn login_limit_is_not_lowered_and_not_above_the_kernels() {
    let machine = SimulatedMachine::untuned();
    let limits = "etc/security/limits.d/60-tickcast-nofile.conf";
    machine.exits_with(0, "descriptors", &["apply", "60000"]);
    machine.exits_with(0, "descriptors", &["apply", "50000"]);
    machine.exits_with(0, "descriptors", &["check", "50000"]);
    machine.exits_with(1, "descriptors", &["check", "60001"]);
    assert!(machine.read(limits).contains("* - nofile 60000\n"));
    machine.exits_with(0, "memlock", &["apply"]);
    machine.exits_with(0, "memlock", &["apply", "16384"]);
    assert!(machine.read("etc/security/limits.d/60-tickcast-memlock.conf").contains("unlimited"));
    // A failed write is not reported as a success.
    let machine = SimulatedMachine::untuned();
    std::fs::create_dir_all(machine.root.path().join(limits)).expect("room for it");
    let output = machine.exits_with(2, "descriptors", &["apply"]);
    assert!(output.contains("cannot be written") && !output.contains("next login"), "{output}");
    // A login with a limit above fs.nr_open would be refused.
    let machine = SimulatedMachine::untuned();
    std::fs::remove_file(machine.root.path().join("proc/sys/fs/nr_open")).expect("it is there");
    let output = machine.exits_with(0, "descriptors", &["apply"]);
    assert!(output.contains("nofile is left alone") && !machine.has(limits), "{output}");
}

#[test]
fn second_apply_keeps_the_other_lines_of_the_drop_in() {
    let machine = SimulatedMachine::untuned();
    machine.exits_with(0, "accept_queue", &["apply"]);
    machine.write("proc/sys/net/core/somaxconn", "128\n");
    machine.exits_with(0, "accept_queue", &["apply"]);
    let drop_in = machine.read("etc/sysctl.d/60-tickcast-accept_queue.conf");
    for line in ["net.core.somaxconn = 65535\n", "net.ipv4.tcp_max_syn_backlog = 65535\n"] {
        assert_eq!(drop_in.matches(line).count(), 1, "{drop_in}");
    }
}

#[test]
fn undo_restores_a_file_from_before() {
    let machine = SimulatedMachine::untuned();
    machine.write("etc/sysctl.d/60-tickcast-ports.conf", "# of an administrator, without a line's end");
    machine.write("etc/default/grub.d/60-tickcast.cfg", "");
    let before = machine.snapshot();
    machine.exits_with(0, "ports", &["apply"]);
    machine.exits_with(1, "isolated_cores", &["apply"]);
    machine.exits_with(1, "isolated_cores", &["apply", "3"]);
    machine.exits_with(0, "isolated_cores", &["undo"]);
    machine.exits_with(0, "ports", &["undo"]);
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn better_values_are_left_alone() {
    let machine = SimulatedMachine::untuned();
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
        machine.exits_with(0, &setting, &["check"]);
        machine.exits_with(0, &setting, &["apply"]);
        machine.exits_with(0, &setting, &["undo"]);
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn absent_values_are_not_applicable_and_nothing_is_written() {
    let machine = SimulatedMachine::empty();
    let before = machine.snapshot();
    for setting in settings() {
        for verb in ["check", "apply"] {
            let output = machine.exits_with(3, &setting, &[verb]);
            assert!(
                output.contains("not applicable here")
                    || output.contains("is not there, or cannot be read")
                    || output.contains("is not in"),
                "{output}"
            );
        }
        machine.exits_with(0, &setting, &["undo"]);
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn unreadable_value_does_not_stop_the_others() {
    let machine = SimulatedMachine::untuned();
    let path = machine.root.path().join("proc/sys/net/core/somaxconn");
    std::fs::remove_file(&path).expect("it is there");
    std::fs::create_dir(&path).expect("room for it");
    let output = machine.exits_with(0, "accept_queue", &["apply"]);
    assert!(output.contains("net.core.somaxconn is not there, or cannot be read"), "{output}");
    assert_eq!(machine.read("proc/sys/net/ipv4/tcp_max_syn_backlog"), "65535\n");
}

#[test]
fn network_card_settings_need_a_card_and_ethtool() {
    let machine = SimulatedMachine::untuned();
    for setting in ["queues", "steering", "irq_affinity", "coalescing"] {
        machine.exits_with(3, setting, &["check", "lo"]);
        let output = machine.exits_with(2, setting, &["check", "eth7"]);
        assert!(output.contains("unknown interface \"eth7\""), "{output}");
    }
    machine.exits_with(2, "irq_affinity", &["check", "eth0", "first"]);
    machine.exits_with(2, "queues", &["check", "eth0", "many"]);
    std::fs::remove_file(machine.root.path().join("usr/sbin/ethtool")).expect("it is there");
    for setting in ["queues", "coalescing"] {
        let output = machine.exits_with(3, setting, &["apply"]);
        assert!(output.contains("ethtool is not installed"), "{output}");
    }
}

#[test]
fn interface_is_found_by_an_ipv6_default_route() {
    let machine = SimulatedMachine::untuned();
    machine.write("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n");
    machine.exits_with(3, "queues", &["check"]);
    let (none, all) = ("0".repeat(32), "f".repeat(32));
    let route = |to: &str, bits: &str, name: &str| {
        format!("{to} {bits} {none} 00 {none} 00000400 00000001 00000000 00000001 {name:>8}\n")
    };
    let text = [route(&none, "00", "lo"), route(&all, "80", "eth9"), route(&none, "00", "eth0")].concat();
    machine.write("proc/net/ipv6_route", &text);
    assert!(machine.exits_with(1, "queues", &["check"]).contains("eth0"));
}

#[test]
fn cores_can_be_listed() {
    let machine = SimulatedMachine::untuned();
    assert!(!machine.exits_with(0, "irq_affinity", &["apply", "eth0", "3,0-1"]).contains("irqbalance"));
    machine.write("proc/17/comm", "irqbalance\n");
    assert!(machine.exits_with(0, "irq_affinity", &["check", "eth0", "3,0-1"]).contains("irqbalance is running"));
    assert_eq!(machine.read("proc/irq/41/smp_affinity_list"), "3\n");
    assert_eq!(machine.read("proc/irq/42/smp_affinity_list"), "0\n");
    let output = machine.exits_with(2, "isolated_cores", &["apply", "0-3"]);
    assert!(output.contains("expected at least one core"), "{output}");
    machine.exits_with(2, "isolated_cores", &["apply", "some"]);
    machine.write("sys/devices/system/cpu/online", "0-2\n");
    machine.exits_with(3, "isolated_cores", &["apply"]);
    machine.exits_with(1, "isolated_cores", &["apply", "2"]);
    machine.write("sys/devices/system/cpu/isolated", "2\n");
    machine.write("sys/devices/system/cpu/nohz_full", "2\n");
    machine.exits_with(1, "isolated_cores", &["check", "2"]);
    machine.write("proc/cmdline", "quiet isolcpus=managed_irq,domain,2 nohz_full=2 rcu_nocbs=2\n");
    machine.exits_with(0, "isolated_cores", &["check", "2"]);
}

#[test]
fn masks_of_many_cores_are_in_groups() {
    let machine = SimulatedMachine::untuned();
    machine.write("sys/devices/system/cpu/online", "0,31-33,95\n");
    machine.exits_with(0, "steering", &["apply"]);
    assert_eq!(machine.read("sys/class/net/eth0/queues/tx-0/xps_cpus"), "80000000,00000001,00000001\n");
    assert_eq!(machine.read("sys/class/net/eth0/queues/tx-1/xps_cpus"), "00000002,80000000\n");
}

#[test]
fn memory_for_tcp_is_at_most_half_of_the_machine() {
    let machine = SimulatedMachine::untuned();
    machine.write("proc/meminfo", "MemTotal:        4096000 kB\n");
    machine.exits_with(0, "tcp_memory", &["apply"]);
    let half = 4_096_000 * 1024 / rustix::param::page_size() / 2;
    assert_eq!(machine.read("proc/sys/net/ipv4/tcp_mem"), format!("{} {} {half}\n", half / 2, half * 3 / 4));
}

#[test]
fn invalid_verbs_and_arguments_are_refused() {
    let machine = SimulatedMachine::untuned();
    let before = machine.snapshot();
    for setting in settings() {
        let output = machine.exits_with(2, &setting, &["aply"]);
        assert!(output.contains("unknown verb \"aply\": expected check, apply or undo"), "{output}");
        assert!(output.contains(&format!("tuning/{setting} check|apply|undo")), "{output}");
        assert!(machine.exits_with(2, &setting, &[]).contains("check|apply|undo"), "{setting}");
        assert!(machine.exits_with(0, &setting, &["help"]).contains("Why "), "{setting}");
    }
    for setting in ["descriptors", "memlock", "accept_queue", "tcp_memory", "notsent_lowat", "cstates", "conntrack"] {
        for argument in ["many", "0", "-1", "1.5", "99999999999999999999"] {
            let output = machine.exits_with(2, setting, &["apply", argument]);
            assert!(output.contains("expected a whole number above 0"), "{setting} {argument}: {output}");
        }
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn nothing_is_changed_if_the_old_value_cannot_be_saved() {
    let machine = SimulatedMachine::untuned();
    let before = machine.snapshot();
    for setting in settings() {
        let mut command = machine.command(&setting, &["apply"]);
        command.env("TUNING_STATE", machine.root.path().join("etc/hostname"));
        let result = machine::run_command(command);
        assert_eq!(result.code, Some(2), "{setting}: {}", result.text);
        assert!(result.text.contains("need root"), "{setting}: {}", result.text);
    }
    assert_same(&machine.snapshot(), &before, "undone");
}

#[test]
fn value_that_has_gone_does_not_stop_the_undo() {
    let machine = SimulatedMachine::untuned();
    machine.exits_with(0, "governor", &["apply"]);
    let core = machine.root.path().join("sys/devices/system/cpu/cpu2");
    std::fs::remove_dir_all(core).expect("it is there");
    let output = machine.exits_with(0, "governor", &["undo"]);
    assert!(output.contains("is no longer there"), "{output}");
    assert_eq!(machine.read("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"), "powersave\n");
}

#[test]
fn profile_is_applied_in_order_and_undone_in_reverse() {
    for profile in documents::profiles() {
        let machine = SimulatedMachine::untuned();
        let before = machine.snapshot();
        let output = machine.exits_with(1, "profile", &["check", &profile]);
        assert!(output.contains("0 as wanted") && output.contains("0 failed"), "{output}");
        // The one setting that needs a reboot is in the profile for a dedicated machine.
        let reboots = output.contains(TAKES_A_REBOOT);
        machine.exits_with(i32::from(reboots), "profile", &["apply", &profile]);
        machine.exits_with(i32::from(reboots), "profile", &["check", &profile]);
        assert!(machine.has(STATE), "{profile}");
        machine.exits_with(0, "profile", &["undo", &profile]);
        assert_same(&machine.snapshot(), &before, &profile);
        machine.exits_with(i32::from(reboots), "profile", &["apply", &profile]);
        machine.exits_with(0, "profile", &["undo", "all"]);
        assert_same(&machine.snapshot(), &before, &profile);
    }
    let machine = SimulatedMachine::empty();
    machine.exits_with(3, "profile", &["check", "server"]);
    for args in [&["check"][..], &["check", "all"], &["check", "../profile"], &["tune", "server"], &[]] {
        assert!(machine.exits_with(2, "profile", args).contains("tuning/profile check|apply|undo NAME"), "{args:?}");
    }
}
