//! `tickcast check`, and the same checks at the start of the server, on the real machine, however it is set up. Each
//! setting's check is tested beside its source, on simulated machines.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tickcast_test_support::paths;
use tickcast_test_support::server::{Program, Server};

/// More connections than any machine can hold.
const TOO_MANY: &str = "4294967295";

fn json(args: &[&str]) -> (Option<i32>, Value) {
    let exit = Program::run(&[&["check", "--json"], args].concat());
    (exit.code, serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:?}")))
}

/// The program, started by a shell that runs `command` first.
fn after(command: &str, args: &[&str]) -> Command {
    let mut shell = Command::new("bash");
    shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    shell.args(["-c", &format!(r#"{command} && exec "$@""#), "bash"]).arg(paths::program()).args(args);
    shell
}

#[test]
fn lines_and_json_have_the_same_findings_and_exit_code() {
    let exit = Program::run(&["check", "--connections", "1000"]);
    let (code, object) = json(&["--connections", "1000"]);
    assert_eq!(exit.code, code);
    assert_eq!(object["exit_code"], code.expect("it exits by itself"));
    assert_eq!(object["connections"], 1000);
    let settings = object["settings"].as_array().expect("a list");
    for setting in settings {
        let text = |key: &str| setting[key].as_str().expect("a text");
        let line = exit.stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(text("setting")));
        let line = line.unwrap_or_else(|| panic!("{setting} is not in {}", exit.stdout));
        assert!(line.starts_with(text("state")) && line.contains(text("wanted")), "{line}");
    }
    assert!(settings.len() > 10, "{settings:?}");
}

#[test]
fn too_many_connections_are_missing_and_exit_with_3() {
    let exit = Program::run(&["check", "--connections", TOO_MANY]);
    assert_eq!(exit.code, Some(3), "{exit:?}");
    let line = exit.stdout.lines().find(|line| line.starts_with("missing   descriptors"));
    assert!(line.is_some_and(|line| line.ends_with("tuning/descriptors")), "{}", exit.stdout);
    // A server with the same setting does not start.
    let exit = Program::run(&["--connections-max", TOO_MANY, "--feed", "none", "--listen", "127.0.0.1:0"]);
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("connections_max"), "{}", exit.stderr);
}

/// The same inside a user namespace, where a process has all capabilities and the kernel heeds none of them.
fn namespaced(command: &str, args: &[&str]) -> Command {
    let inside = after(command, args);
    let mut outer = Command::new("unshare");
    outer.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    outer.args(["--map-root-user", "bash"]).args(inside.get_args());
    outer
}

#[test]
fn inside_a_user_namespace_the_check_and_the_start_agree() {
    if !Command::new("unshare").args(["--map-root-user", "true"]).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: user namespaces are not permitted here");
        return;
    }
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!("SKIPPED: one core's rings fit into the least limit that glommio takes");
        return;
    }
    // Enough for glommio's own bound, and less than the rings of two cores take where they are counted.
    const LIMIT: &str = "ulimit -l 520";
    let needs = ["--cores", "0,1", "--connections-max", "1000"];
    let check = namespaced(LIMIT, &[&["check", "--json"], &needs[..]].concat());
    let exit = Program::spawn(check).wait_for_exit();
    let report: Value = serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:?}"));
    let settings = report["settings"].as_array().expect("a list");
    let state = |name: &str| settings.iter().find(|one| one["setting"] == name).expect("the setting")["state"].clone();
    let start = namespaced(LIMIT, &[&["--feed", "none", "--listen", "127.0.0.1:0"], &needs[..]].concat());
    if state("memlock") == "missing" || state("io_uring") == "missing" {
        let exit = Program::spawn(start).wait_for_exit();
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains("tuning/memlock"), "{}", exit.stderr);
    } else {
        // It serves, or this panics with what it printed.
        drop(Server::spawn(start));
    }
}

#[test]
fn bad_arguments_exit_with_2_and_no_findings() {
    for (args, parts) in [
        (&["--connections", "0"][..], "0 is not in 1.."),
        (&["--connections", "many"], "many"),
        (&["--cores", "9999"], "cores: core 9999"),
        (&["--config", "/nowhere/tickcast.toml"], "/nowhere/tickcast.toml"),
        (&["accept_queue"], "accept_queue"),
    ] {
        let exit = Program::run(&[&["check"], args].concat());
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(2), ""), "{args:?}: {exit:?}");
        assert!(exit.stderr.contains(parts), "{args:?}: {}", exit.stderr);
    }
}

#[test]
fn connections_default_to_the_setting_of_the_server() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "connections_max = 11").expect("the file is writable");
    let path = file.path().to_str().expect("a path of ASCII");
    let connections = |args: &[&str], variable: Option<&str>| {
        let mut command = Program::command(&[&["check", "--json", "--config", path], args].concat());
        variable.map(|value| command.env("TICKCAST_CONNECTIONS_MAX", value));
        let exit = Program::spawn(command).wait_for_exit();
        serde_json::from_str::<Value>(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:?}"))["connections"]
            .clone()
    };
    assert_eq!(connections(&[], None), 11);
    assert_eq!(connections(&[], Some("22")), 22);
    assert_eq!(connections(&["--connections-max", "33"], Some("22")), 33);
    assert_eq!(connections(&["--connections", "44", "--connections-max", "33"], Some("22")), 44);
}

#[test]
fn a_start_without_enough_locked_memory_fails_with_the_fix() {
    let serve = ["--feed", "none", "--listen", "127.0.0.1:0"];
    let exit = Program::spawn(after("ulimit -l 256", &serve)).wait_for_exit();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    for parts in ["memlock: 256 KiB, wanted at least 512 KiB", "'tuning/memlock apply' fixes it", "'tickcast check'"] {
        assert!(exit.stderr.contains(parts), "{parts}: {}", exit.stderr);
    }
    assert!(!exit.stderr.contains("panicked") && !exit.stdout.contains("serving on"), "{exit:?}");
    let exit = Program::spawn(after("ulimit -l 256", &["check"])).wait_for_exit();
    assert_eq!(exit.code, Some(3), "{exit:?}");
}

#[test]
fn recommendations_at_a_start_are_one_line() {
    let unshare = Command::new("unshare").args(["--net", "true"]).output();
    if !unshare.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED: network namespaces are not permitted ('unshare --net' needs root)");
    }
    let start = |somaxconn: &str| {
        // The namespace ends with the server.
        let set = format!(
            "cd /proc/sys/net && echo {somaxconn} >core/somaxconn && echo 65535 >ipv4/tcp_max_syn_backlog \
             && echo 0 >ipv4/tcp_slow_start_after_idle && ip link set lo up"
        );
        let server = after(&set, &["--feed", "none", "--listen", "127.0.0.1:0", "--connections-max", "200"]);
        let mut command = Command::new("unshare");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("--net").arg(server.get_program()).args(server.get_args());
        Server::spawn(command).stop(Signal::TERM)
    };
    let exit = start("1");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let lines: Vec<_> = exit.stderr.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(lines.len(), 1, "{}", exit.stderr);
    assert!(lines[0].contains("accept_queue") && lines[0].contains("'tickcast check'"), "{lines:?}");
    assert!(!start("65535").stderr.contains("accept_queue"));
}
