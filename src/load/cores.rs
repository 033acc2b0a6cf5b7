//! Which cores a thread or a process runs on.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A list of cores, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

/// Restricts a thread (this one for `None`) to these cores.
pub fn stay_on(thread: Option<Pid>, cores: &[usize]) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        set.set(*core);
    }
    Ok(sched_setaffinity(thread, &set)?)
}

/// The cores that this thread may run on.
pub fn available() -> std::io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Reads `0,2-5`.
pub fn parse_core_list(text: &str) -> Result<CoreList, String> {
    let problem = || format!("invalid value {text:?}: expected a list of cores such as 0,2-5");
    let number = |word: &str| word.trim().parse::<usize>().ok().filter(|core| *core < CpuSet::MAX_CPU);
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => cores.extend(first..=last),
            _ => return Err(problem()),
        }
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(CoreList(cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_parsed_or_refused_with_an_example() {
        assert_eq!(parse_core_list("0,2-5,3"), Ok(CoreList(vec![0, 2, 3, 4, 5])));
        for bad in ["", "a", "3-1", "1,", "-1", "99999"] {
            let error = parse_core_list(bad).expect_err(bad);
            assert!(error.contains("0,2-5"), "{error}");
        }
        assert!(!available().expect("Linux reports it").is_empty());
    }
}
