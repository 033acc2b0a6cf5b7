//! The whole server beside its floor: the cost and the latency of a delivery, the memory of a connection, and how close
//! they are to the least that the kernel needs.
//!
//! Method: each row starts the real program on core 0 and `tickcast load` on core 1, as processes of their own. A pair
//! is one run of the server and one of its reference, directly before or after it in alternating order, under the same
//! load. For most rows the reference is `tickcast floor`, a loop without protocol, subscriptions and checks. A figure
//! is the median of the pairs, a ratio the median of the pairs' ratios, with the least and the greatest beside it. CPU
//! time is that of all the server's threads, as the system counts it. A run whose load generator was the bottleneck
//! gives no figure, and a floor that dropped messages is no floor; both are reported below the table. In rows with a
//! pause the load's threads may be busy while the backlog arrives: server and floor are then read equally fast, and
//! docs/load.md says which seconds count.
//!
//! Non-goals: comparisons with other servers, networks beyond loopback, and more than two cores. Figures of a machine
//! that does other work are meaningless: the spread shows it.
//!
//! ```text
//! cargo bench --bench bars -- all                          # some hours
//! cargo bench --bench bars -- --pairs 5 --seconds 10 burst quiet
//! ```

mod rows;
mod run;
mod table;

use std::process::ExitCode;

use clap::Parser;

/// Measures the server beside its floor, and prints a table.
#[derive(Parser)]
struct Cli {
    /// Runs of each side of a row
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Seconds to measure in each run [default: the row's own]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Rows to measure, or `all`; `partial` are all whose name begins with `partial-`
    names: Vec<String>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // `cargo bench` without a name runs all benches: this one takes hours, so it needs arguments.
    if cli.names.is_empty() {
        println!("bars: name the rows to measure, or all: cargo bench --bench bars -- [--pairs N] [--seconds S] NAME…");
        rows::all().for_each(|row| println!("  {:<12} {}", row.name, row.what));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = cli.names.iter().find(|name| rows::named(name).is_empty()) {
        let known: Vec<_> = rows::all().map(|row| row.name).collect();
        eprintln!("bars: no row is named {unknown:?}; have all, {}", known.join(", "));
        return ExitCode::from(2);
    }
    let mut findings = Vec::new();
    let mut wanted: Vec<_> = cli.names.iter().flat_map(|name| rows::named(name)).collect();
    wanted.dedup_by_key(|row| row.name);
    for row in wanted {
        findings.push(measure(row, cli.pairs, cli.seconds.unwrap_or(row.seconds)));
        // Each row is printed by itself, so that its figures are visible when a later one fails.
        eprintln!("{}", table::render(&findings[findings.len() - 1..]));
    }
    println!("{}", table::render(&findings));
    ExitCode::SUCCESS
}

/// All pairs of a row, and the errors of some.
fn measure(row: &'static rows::Row, pairs: u32, seconds: u32) -> table::Finding {
    let mut finding = table::Finding::new(row);
    for pair in 0..pairs {
        eprintln!("{}: pair {} of {pairs}, {seconds} s a run", row.name, pair + 1);
        let subject = || run::run(&row.subject, row.load, seconds);
        let reference = || row.reference.as_ref().map(|reference| run::run(reference, row.load, seconds)).transpose();
        // Alternating, so that neither side always finds the machine as the other left it.
        let outcome = if pair % 2 == 0 {
            subject().and_then(|subject| Ok((subject, reference()?)))
        } else {
            reference().and_then(|reference| Ok((subject()?, reference)))
        };
        match outcome {
            Ok((subject, reference)) => finding.add(subject, reference),
            Err(problem) => finding.notes.push(format!("pair {}: {problem}", pair + 1)),
        }
    }
    if let Some(search) = &row.search {
        finding.notes.push(largest_rate(row, search, seconds));
    }
    finding
}

/// Raises the rate until the row no longer meets its limit.
fn largest_rate(row: &rows::Row, search: &rows::Search, seconds: u32) -> String {
    let mut held = None;
    let mut rate = search.first;
    let end = loop {
        let text = rate.to_string();
        let mut load = row.load.to_vec();
        let at = load.iter().position(|word| *word == "--publish").expect("a row that is searched publishes");
        load[at + 1] = &text;
        match run::run(&row.subject, &load, seconds) {
            Ok(outcome)
                if outcome.lost() == Some(0.0) && outcome.p99_ms().is_some_and(|p99| p99 <= search.p99_ms_max) =>
            {
                held = Some(rate);
            }
            Ok(outcome) => break format!("at {rate}/s {}", outcome.summary()),
            Err(problem) => break format!("at {rate}/s: {problem}"),
        }
        rate += rate / 4;
    };
    let held = held.map_or("none".to_owned(), |rate| format!("{rate}/s"));
    format!("largest rate that held: {held}; {end}")
}
