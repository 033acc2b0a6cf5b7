use super::*;

const HOUR: u64 = 3_600_000;

/// A line of a session at an hour of November 2026.
fn line(
    event: &str,
    hour: f64,
    session: &str,
    user: &str,
    professional: &str,
    products: &str,
    times: (f64, f64),
) -> String {
    let at = |hour: f64| super::super::calendar::utc((november().start_ms as f64 + hour * HOUR as f64) as u64);
    let (from, to) = (at(times.0), at(times.1));
    let professional =
        if professional.is_empty() { String::new() } else { format!("\"professional\":{professional},") };
    let to = if event == "closed" { format!(",\"to\":\"{to}\"") } else { String::new() };
    format!(
        "{{\"at\":\"{}\",\"kind\":\"usage\",\"event\":\"{event}\",\"session\":\"{session}\",\"user\":\"{user}\",\
         {professional}\"products\":[{products}],\"from\":\"{from}\"{to}}}\n",
        at(hour)
    )
}

fn november() -> Month {
    parse_month("2026-11").unwrap()
}

fn report(files: &[(&str, &str)]) -> Report {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Report::read(folder.path(), november()).unwrap()
}

fn row(report: &Report, product: &str) -> (u64, u64, u64, u64, u64) {
    let row = report.rows.iter().find(|row| row.product == product).unwrap_or_else(|| panic!("{report:?}"));
    (row.professional, row.non_professional, row.unclassified, row.peak_sessions, row.session_ms * 4 / HOUR)
}

#[test]
fn users_peaks_and_hours_are_counted_by_product() {
    let lines = [
        line("opened", 1.0, "r-1", "a", "false", "\"X\",\"Y\"", (1.0, 0.0)),
        line("opened", 2.0, "r-2", "b", "true", "\"X\"", (2.0, 0.0)),
        // From X and Y to Y and Z.
        line("changed", 3.0, "r-1", "a", "false", "\"Y\",\"Z\"", (3.0, 0.0)),
        line("closed", 4.0, "r-2", "b", "true", "\"X\"", (2.0, 4.0)),
        // The next one of a user begins where the last one ends.
        line("opened", 4.0, "r-3", "b", "true", "\"X\"", (4.0, 0.0)),
        line("closed", 5.0, "r-3", "b", "true", "\"X\"", (4.0, 5.0)),
        line("closed", 6.0, "r-1", "a", "false", "\"Y\",\"Z\"", (3.0, 6.0)),
        // A user without a flag and without a product, for no time.
        line("opened", 7.0, "r-4", "c", "", "", (7.0, 0.0)),
        line("closed", 7.0, "r-4", "c", "", "", (7.0, 7.0)),
        // Once professional, always professional.
        line("opened", 8.0, "r-5", "a", "true", "\"X\"", (8.0, 0.0)),
        line("closed", 8.5, "r-5", "a", "true", "\"X\"", (8.0, 8.5)),
    ];
    let report = report(&[("usage-2026-11-01-0001.jsonl", &lines.concat())]);
    assert_eq!(row(&report, "X"), (2, 0, 0, 2, 4 * 2 + 4 * 2 + 4 + 2));
    assert_eq!(row(&report, "Y"), (0, 1, 0, 1, 4 * 5));
    assert_eq!(row(&report, "Z"), (0, 1, 0, 1, 4 * 3));
    assert_eq!(row(&report, ""), (0, 0, 1, 1, 0), "it was a session all the same");
    assert_eq!((report.total.users(), report.total.peak_sessions, report.unread.lines), (3, 2, 0), "{report:?}");
    let json: serde_json::Value = serde_json::from_str(&text::json(&report)).unwrap();
    assert_eq!(json["products"][0]["product"], serde_json::Value::Null);
    assert_eq!((&json["products"][1]["product"], &json["products"][1]["session_hours"]), (&"X".into(), &5.5.into()));
    let csv = text::csv(&report);
    assert!(csv.contains("\nX,0,2,0,0,2,2,5.50\n") && csv.contains("\n,0,0,0,1,1,1,0.00\n"), "{csv}");
    assert!(text::table(&report).contains("(no product)") && !text::table(&report).contains("could not be read"));
}

#[test]
fn delayed_data_has_rows_of_its_own() {
    let live = line("closed", 2.0, "r-1", "a", "false", "\"X\"", (1.0, 2.0));
    let delayed =
        line("closed", 2.0, "r-2", "b", "true", "\"X\"", (1.0, 2.0)).replace("\"at\"", "\"delay_s\":900,\"at\"");
    let report = report(&[("usage-2026-11-01-0001.jsonl", &(live + &delayed))]);
    let rows: Vec<_> = report.rows.iter().map(|row| (row.product.as_str(), row.delay_s, row.professional)).collect();
    assert_eq!((rows, report.total.users()), (vec![("X", 0, 0), ("X", 900, 1)], 2));
    assert!(text::csv(&report).contains("\nX,900,1,0,0,1,1,1.00\n"), "{}", text::csv(&report));
}

#[test]
fn sessions_count_for_the_part_of_them_that_is_in_the_month() {
    let day = 24.0;
    let lines = [
        line("opened", -2.0, "r-1", "before", "false", "\"X\"", (-2.0, 0.0)),
        line("closed", -1.0, "r-1", "before", "false", "\"X\"", (-2.0, -1.0)),
        line("opened", -1.0, "r-2", "into", "false", "\"X\"", (-1.0, 0.0)),
        line("closed", 1.0, "r-2", "into", "false", "\"X\"", (-1.0, 1.0)),
        line("opened", 30.0 * day - 1.0, "r-5", "over", "false", "\"X\"", (30.0 * day - 1.0, 0.0)),
        line("closed", 30.0 * day + 2.0, "r-5", "over", "false", "\"X\"", (30.0 * day - 1.0, 30.0 * day + 2.0)),
        line("opened", 30.0 * day - 0.5, "r-3", "beyond", "false", "\"X\"", (30.0 * day - 0.5, 0.0)),
    ];
    let later = [
        line("opened", 30.0 * day + 1.0, "r-4", "after", "false", "\"X\"", (30.0 * day + 1.0, 0.0)),
        line("closed", 30.0 * day + 2.0, "r-3", "beyond", "false", "\"X\"", (30.0 * day - 0.5, 30.0 * day + 2.0)),
    ];
    let (lines, later) = (lines.concat(), later.concat());
    let report = report(&[("usage-2026-10-31-0001.jsonl", &lines), ("usage-2026-12-01-0001.jsonl", &later)]);
    assert_eq!(row(&report, "X"), (0, 3, 0, 2, 4 + 2 + 4));
    assert_eq!(report.files, 1);
}

#[test]
fn killed_servers_sessions_end_with_its_last_line_and_lost_openings_are_told_by_the_end() {
    let server = |event: &str, hour: f64| {
        let at = super::super::calendar::utc(november().start_ms + (hour * HOUR as f64) as u64);
        format!("{{\"at\":\"{at}\",\"kind\":\"server\",\"event\":\"{event}\",\"session\":\"r\"}}\n")
    };
    let lines = [
        // Its opening was in a file that is gone.
        line("closed", 2.0, "q-9", "early", "false", "\"X\"", (1.0, 2.0)),
        line("opened", 3.0, "q-10", "a", "false", "\"X\"", (3.0, 0.0)),
        server("alive", 4.0),
        "{\"at\":\"2026-11-01T04:00:3".to_owned(),
        "\n".to_owned(),
        server("started", 9.0),
        line("opened", 9.0, "r-1", "a", "false", "\"X\"", (9.0, 0.0)),
        server("alive", 9.5),
        "nonsense\n{}\n{\"kind\":\"usage\"}\n\n".to_owned(),
        line("opened", 9.5, "", "a", "false", "\"X\"", (9.5, 0.0)),
        "no end".to_owned(),
    ];
    let report = report(&[("usage-2026-11-01-0001.jsonl", &lines.concat())]);
    assert_eq!(row(&report, "X"), (0, 2, 0, 1, 4 + 4 + 2));
    assert_eq!(report.unread.lines, 7, "{report:?}");
    assert!(report.unread.listed[0].starts_with("usage-2026-11-01-0001.jsonl:4: "), "{report:?}");
    assert!(report.unread.listed[6].contains(":13: its end is missing"), "{report:?}");
    assert!(text::table(&report).contains("7 lines could not be read"));
}

#[test]
fn months_and_empty_folders_are_named_with_what_was_expected() {
    for text in ["2026-13", "2026-1", "26-11", "2026-11-01", "+026-11", ""] {
        assert!(parse_month(text).unwrap_err().contains("expected one such as 2026-11"), "{text}");
    }
    assert_eq!(parse_month("2026-12").unwrap().start_ms, november().end_ms);
    let folder = tempfile::tempdir().unwrap();
    assert!(Report::read(folder.path(), november()).unwrap_err().to_string().contains("no usage log"));
    assert!(Report::read(&folder.path().join("none"), november()).unwrap_err().to_string().contains("none: "));
}
