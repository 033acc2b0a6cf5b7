//! The sysctls of a real kernel, in a separate network namespace.
//!
//! The namespace's `/proc` and `/sys` are mounted into a folder that is the scripts' root, so that their drop-ins and
//! saved values are written there. Both namespaces end with the test's shell.

use std::process::Command;

use super::machine::{SimulatedMachine, folder, run_command};

/// Runs a bash script in separate namespaces. If that is not permitted, reports the test as skipped and returns `None`.
fn in_namespace(machine: &SimulatedMachine, script: &str) -> Option<String> {
    let permitted = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: network namespaces are not permitted here ('unshare --net --mount' needs root)");
        return None;
    }
    const MOUNTS: &str = r#"set -euo pipefail
        mkdir -p "$TUNING_ROOT"/{proc,sys,etc,usr/sbin,var/lib}
        mount --rbind /proc "$TUNING_ROOT/proc"
        mount -t sysfs sysfs "$TUNING_ROOT/sys"
        ip link set lo up
    "#;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "bash", "-c", &format!("{MOUNTS}\n{script}")]);
    command.env("TUNING_ROOT", machine.root.path()).env_remove("TUNING_STATE").current_dir(folder());
    let result = run_command(command);
    assert_eq!(result.code, Some(0), "{}", result.text);
    Some(result.text)
}

#[test]
fn sysctls_of_a_real_kernel_are_set_and_undone() {
    let machine = SimulatedMachine::empty();
    let script = r#"
        keys="net/core/somaxconn net/ipv4/tcp_max_syn_backlog net/ipv4/tcp_slow_start_after_idle
              net/ipv4/tcp_notsent_lowat net/ipv4/ip_local_port_range net/ipv4/tcp_wmem"
        values() { (cd /proc/sys && tail -n +1 $keys); }
        echo 128 >/proc/sys/net/core/somaxconn
        echo 256 >/proc/sys/net/ipv4/tcp_max_syn_backlog
        echo 1 >/proc/sys/net/ipv4/tcp_slow_start_after_idle
        echo 4294967295 >/proc/sys/net/ipv4/tcp_notsent_lowat
        echo 32768 60999 >/proc/sys/net/ipv4/ip_local_port_range
        echo 4096 16384 65536 >/proc/sys/net/ipv4/tcp_wmem
        before=$(values)
        settings="accept_queue slow_start notsent_lowat ports"
        for setting in $settings; do ./$setting apply; done
        # The limits of net.core are the machine's: in the namespace they are absent or read-only.
        more=$(($(cat /proc/sys/net/core/wmem_max 2>/dev/null || echo 4194304) + 4096))
        code=0
        ./socket_buffers apply $more || code=$?
        if [ -e /proc/sys/net/core/wmem_max ]; then [ $code = 2 ]; else [ $code = 0 ]; fi
        [ "$(awk '{print $3}' /proc/sys/net/ipv4/tcp_wmem)" = $more ]
        for setting in $settings; do ./$setting check && ./$setting apply; done
        echo "APPLIED $(values | tr '\n\t' '  ')"
        ls "$TUNING_ROOT/etc/sysctl.d"
        ./profile undo all
        [ "$(values)" = "$before" ] && echo SAME
        [ ! -e "$TUNING_ROOT/etc/sysctl.d" ] && echo CLEAN
    "#;
    let Some(output) = in_namespace(&machine, script) else { return };
    let applied = output.lines().find(|line| line.starts_with("APPLIED")).expect("the values");
    for wanted in [
        "somaxconn <== 65535 ",
        "tcp_max_syn_backlog <== 65535 ",
        "tcp_slow_start_after_idle <== 0 ",
        "tcp_notsent_lowat <== 131072 ",
        "ip_local_port_range <== 10000 65535 ",
    ] {
        let one_line = applied.replace("==> ", "").replace("  ", " ");
        assert!(one_line.contains(wanted), "{wanted}: {output}");
    }
    assert!(output.contains("60-tickcast-accept_queue.conf"), "{output}");
    assert!(output.contains("SAME") && output.contains("CLEAN"), "{output}");
}

#[test]
fn queues_of_a_real_interface_are_set_and_undone() {
    let machine = SimulatedMachine::empty();
    let script = r#"
        [ "$(nproc)" -gt 1 ] || { echo "SKIPPED: one core has nothing to choose"; exit 0; }
        ethtool=$(command -v ethtool) || { echo "SKIPPED: ethtool is not installed"; exit 0; }
        ln -s "$ethtool" "$TUNING_ROOT/usr/sbin/ethtool"
        # Both ends of a pair, so that no hardware is needed.
        ip link add one numrxqueues 4 numtxqueues 4 type veth peer name two numrxqueues 4 numtxqueues 4 ||
          { echo "SKIPPED: this kernel has no veth"; exit 0; }
        ethtool -L one rx 1 tx 1
        ip addr add 10.255.255.1/24 dev one
        ip link set one up
        ip link set two up
        ip route add default via 10.255.255.2
        ./queues check && exit 1
        ./queues apply
        ./queues check
        ./steering apply
        ./steering check
        ./steering undo
        ./steering check one && exit 1
        ./queues undo
        ethtool -l one | tail -n 4
        ./coalescing check || [ $? = 3 ]
        ./irq_affinity check || [ $? = 3 ]
    "#;
    let Some(output) = in_namespace(&machine, script) else { return };
    if output.contains("SKIPPED") {
        return println!("{output}");
    }
    assert!(output.contains("set      steering"), "{output}");
    assert!(output.contains("undone   queues          one: rx is 1 again"), "{output}");
}
