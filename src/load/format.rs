//! Numbers with units, for reports: three significant digits.

/// A duration with three digits: `850ns`, `12.3us`, `4.56ms`, `1.20s`.
pub fn duration_text(ns: u64) -> String {
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (1e3, "us"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{}{name}", three_digits(ns as f64 / unit))
}

/// A count with three digits: `950`, `12.3 k`, `4.56 M`.
pub fn count_text(count: f64) -> String {
    match count {
        0.0..1e3 => format!("{count:.0} "),
        1e3..1e6 => format!("{} k", three_digits(count / 1e3)),
        1e6..1e9 => format!("{} M", three_digits(count / 1e6)),
        _ => format!("{} G", three_digits(count / 1e9)),
    }
}

fn three_digits(value: f64) -> String {
    let decimals = match value {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let durations =
            [(0, "0ns"), (850, "850ns"), (12_340, "12.3us"), (4_560_000, "4.56ms"), (1_200_000_000, "1.20s")];
        for (ns, text) in durations {
            assert_eq!(duration_text(ns), text);
        }
        for (count, text) in [(950.0, "950 "), (12_340.0, "12.3 k"), (456_000_000.0, "456 M"), (2e9, "2.00 G")] {
            assert_eq!(count_text(count), text);
        }
    }
}
