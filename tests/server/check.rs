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

/// `tickcast config check` with a file of these settings.
fn config_check(settings: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tickcast.toml");
    std::fs::write(&path, settings).expect("the folder is writable");
    let exit = Program::run(&["config", "check", "--config", path.to_str().expect("a path in UTF-8")]);
    (exit.code, if exit.code == Some(0) { exit.stdout } else { exit.stderr })
}

#[test]
fn settings_and_their_files_are_checked_without_serving() {
    let (code, text) = config_check("listen = '127.0.0.1:1'\nfeed = 'none'\nring_bytes = 4194304\n");
    assert!(code == Some(0) && text.contains("ring_bytes") && text.ends_with("the settings are valid\n"), "{text}");
    for (settings, expected) in [
        ("ring_byte = 1", "unknown field `ring_byte`"),
        ("feed = 'simm'", "feed"),
        ("cores = true", "expected a text, or a whole number"),
        ("feed = 3", "expected a text or a list of texts"),
        (
            "tls_listen = '127.0.0.1:0'\ntls_cert = '/nowhere/cert.pem'\ntls_key = '/nowhere/key.pem'",
            "/nowhere/cert.pem",
        ),
        ("publish_token_file = '/nowhere/token'", "/nowhere/token"),
    ] {
        let (code, text) = config_check(settings);
        assert!(code == Some(2) && text.contains(expected), "{settings}: {code:?} {text}");
    }
}

/// The sample file is valid as it is, and with each of its settings that are commented out, but for those that name files.
#[test]
fn sample_file_is_valid() {
    let sample = std::fs::read_to_string(paths::repository().join("tuning/tickcast.toml")).expect("it is there");
    assert_eq!(config_check(&sample).0, Some(0));
    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.contains('=');
    let tables = sample.find("#[[issuer]]").expect("a table");
    let settings: Vec<&str> = sample[..tables].lines().filter(is_setting).map(|line| &line[1..]).collect();
    assert!(settings.len() > 8, "{settings:?}");
    for setting in settings.into_iter().filter(|setting| !setting.contains("_file") && !setting.starts_with("tls_")) {
        let setting = if setting.starts_with("cores") { "cores = \"1\"" } else { setting };
        let (code, text) = config_check(&format!("{setting}\n{sample}"));
        assert_eq!(code, Some(0), "{setting}: {text}");
    }
    let issuer: String = sample[tables..].lines().map(|line| format!("{}\n", &line[1..])).collect();
    let (code, text) = config_check(&issuer);
    assert_eq!(code, Some(0), "{text}");
}
