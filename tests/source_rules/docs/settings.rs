//! The table of settings in docs/configuration.md against the real settings.

use std::collections::BTreeSet;

use clap::Args as _;
use tickcast::config::Layer;
use tickcast::ingest::registry::{NONE, NONE_HELP, SCHEMES};

use super::{read, rows, section, unquoted};

/// Flag with its value, variable, default, and whether a reload changes it.
type Setting = (String, String, String, bool);

fn real() -> BTreeSet<Setting> {
    let command = Layer::augment_args(clap::Command::new("tickcast"));
    let fixed = fixed_settings(&read("src/config/reload.rs"));
    let setting = |argument: &clap::Arg| {
        let name = argument.get_long()?;
        let help = argument.get_long_help().or(argument.get_help())?.to_string().replace('\n', " ");
        let is_switch = argument.get_num_args().is_some_and(|values| values.min_values() == 0);
        let value = if is_switch { None } else { argument.get_value_names()?.first() };
        let flag = value.map_or(format!("--{name}"), |value| format!("--{name} {value}"));
        let stated = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
        let absent = if is_switch { "off" } else { "none" };
        let default = stated.map_or(absent, |(default, _)| default).replace('`', "");
        let variable = argument.get_env()?.to_str()?.to_owned();
        Some((flag, variable, default, !fixed.contains(&name.replace('-', "_"))))
    };
    command.get_arguments().filter_map(setting).collect()
}

/// The names in the lists of `reload!` that a reload does not change.
fn fixed_settings(reload: &str) -> BTreeSet<String> {
    let (_, lists) = reload.split_once("\nreload! {").expect("the lists of reload!");
    let list = |name: &str| {
        let (_, rest) = lists.split_once(&format!("{name}:")).unwrap_or_else(|| panic!("no list {name}"));
        rest.split(';').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let names = |field: String| match field.as_str() {
        "feeds" => vec!["feed".to_owned()],
        "archive" => ["archive_dir", "archive_bytes_max"].map(str::to_owned).to_vec(),
        "usage" => ["usage_dir", "usage_bytes_max", "usage_files_max"].map(str::to_owned).to_vec(),
        _ => vec![field],
    };
    list("\n    fixed").into_iter().chain(list("shard_fixed")).flat_map(names).collect()
}

fn documented(page: &str) -> Vec<Setting> {
    let row = |cells: Vec<String>| {
        let [flag, variable, default, reload, meaning] = cells.try_into().expect("five columns");
        assert!(!meaning.is_empty(), "{flag} has no meaning");
        (unquoted(&flag).to_owned(), unquoted(&variable).to_owned(), default, reload == "reload")
    };
    rows(section(page, "## Settings")).into_iter().map(row).collect()
}

fn faults(page: &str, real: &BTreeSet<Setting>) -> Vec<String> {
    let documented = documented(page);
    let set: BTreeSet<_> = documented.iter().cloned().collect();
    let twice = (set.len() < documented.len()).then(|| "a setting is listed twice".to_owned());
    let stale = set.difference(real).map(|setting| format!("listed, but not so in the program: {setting:?}"));
    let missing = real.difference(&set).map(|setting| format!("not listed: {setting:?}"));
    twice.into_iter().chain(stale).chain(missing).collect()
}

#[test]
fn the_table_of_settings_equals_the_real_ones() {
    let real = real();
    assert!(real.len() > 40, "only {} settings were found", real.len());
    assert_eq!(faults(&read("docs/configuration.md"), &real), [""; 0]);
}

/// Forms of `--feed` with their help.
fn feed_faults(page: &str) -> Vec<String> {
    let mut real: BTreeSet<_> = SCHEMES.iter().map(|scheme| (scheme.form.to_owned(), scheme.help.to_owned())).collect();
    real.insert((NONE.to_owned(), NONE_HELP.to_owned()));
    let row = |cells: Vec<String>| (unquoted(&cells[0]).to_owned(), cells[1].clone());
    let table = section(page, "## Feeds").split("\n### ").next().expect("the first part");
    let listed = rows(table).into_iter().map(row).collect();
    real.symmetric_difference(&listed).map(|(form, help)| format!("{form}: {help}")).collect()
}

#[test]
fn the_table_of_feeds_equals_the_registry() {
    let page = read("docs/configuration.md");
    assert_eq!(feed_faults(&page), [""; 0]);
    assert_eq!(feed_faults(&page.replacen("| a simulated market", "| a market", 1)).len(), 2);
}

#[test]
fn a_setting_that_is_wrong_or_missing_in_the_table_is_found() {
    let (page, real) = (read("docs/configuration.md"), real());
    for (line, changed) in [
        ("| 67108864 | reload | memory, a shard", "| 67108865 | reload | memory, a shard"),
        ("TICKCAST_HISTORY_MS", "TICKCAST_HISTORY"),
        ("| off | reload |", "| off | |"),
    ] {
        let planted = page.replacen(line, changed, 1);
        assert_ne!(planted, page, "{line} is there");
        assert_eq!(faults(&planted, &real).len(), 2, "{line}");
    }
    let row = page.lines().find(|line| line.starts_with("| `--listen")).expect("a row");
    assert_eq!(faults(&page.replace(row, ""), &real).len(), 1);
}
