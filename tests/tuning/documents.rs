//! README, headers, profiles and units agree with the scripts.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::machine::{folder, settings};

fn read(path: impl AsRef<Path>) -> String {
    let path = folder().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the profiles.
pub fn profiles() -> Vec<String> {
    let entries = std::fs::read_dir(folder().join("profiles")).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("names are ASCII"));
    let names: Vec<_> = names.collect();
    assert!(names.len() >= 3, "{names:?}");
    names
}

/// The settings that a profile lists.
fn listed(profile: &str) -> Vec<String> {
    let text = read(format!("profiles/{profile}"));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split(' ').next().unwrap_or(line).to_owned()).collect()
}

/// The targets of the text's relative links.
fn linked(text: &str) -> BTreeSet<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    links.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

#[test]
fn readme_lists_every_setting_and_profile() {
    let links = linked(&read("README.md"));
    for link in &links {
        assert!(folder().join(link).exists(), "{link} is listed but does not exist");
    }
    for setting in settings() {
        assert!(links.contains(&setting), "{setting} is not listed");
    }
    for profile in profiles() {
        assert!(links.contains(&format!("profiles/{profile}")), "{profile} is not listed");
    }
}

#[test]
fn every_header_has_all_parts() {
    for setting in settings() {
        let text = read(&setting);
        let mode = std::fs::metadata(folder().join(&setting)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{setting} is executable");
        assert!(text.starts_with(&format!("#!/usr/bin/env bash\n# tuning/{setting} check|apply|undo")), "{setting}");
        for part in [
            "\n# Changes  ",
            "\n# Why      ",
            "\n# Costs    ",
            "\n# Seen     ",
            "\n# Source   ",
            "\nset -euo pipefail\n",
        ] {
            assert!(text.contains(part), "{setting} has no {part:?}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{setting} has a line that is too long");
    }
}

#[test]
fn profiles_list_existing_settings_once() {
    let known = settings();
    for profile in profiles() {
        let listed = listed(&profile);
        assert!(listed.iter().all(|setting| known.contains(setting)), "{profile}: {listed:?}");
        let once: BTreeSet<_> = listed.iter().collect();
        assert_eq!(once.len(), listed.len(), "{profile}: {listed:?}");
        assert!(read(format!("profiles/{profile}")).starts_with("# "), "{profile} has a header");
    }
}

#[test]
fn units_are_valid_for_systemd() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("SKIPPED: systemd-analyze is not installed");
        return;
    }
    let copies = tempfile::tempdir().expect("a directory");
    for unit in ["tickcast.service", "tickcast-tuning@.service"] {
        // The programs are not installed on a machine that runs the tests; any program will do.
        let text = read(unit).replace("/usr/local/bin/tickcast", "/bin/true");
        let text = text.replace("/usr/local/lib/tickcast/tuning/profile", "/bin/true");
        let path = copies.path().join(unit);
        std::fs::write(&path, text).expect("room for it");
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().expect("it starts");
        let output = String::from_utf8_lossy(&output.stderr);
        // Warnings about the machine's own units do not matter.
        let ours: Vec<_> = output.lines().filter(|line| line.contains("tickcast")).collect();
        assert!(ours.is_empty(), "{unit}: {output}");
    }
}
