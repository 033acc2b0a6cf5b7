use std::path::Path;

use serde_json::Value;

use super::*;
use crate::identity::{Kind, Principal, Rights};

fn settings(folder: &Path) -> UsageSettings {
    UsageSettings { folder: Some(folder.to_owned()), bytes_max: 1 << 20, files_max: 4 }
}

fn opened(number: u64) -> What {
    let principal = Arc::new(Principal::new(Kind::Token, "u1", Arc::new(Rights::none())));
    let session = SessionFacts { number, principal, address: None, transport: "events", delay_s: 0, from_ms: 5 };
    What::Session { session, change: Change::Opened }
}

fn lines(folder: &Path) -> Vec<Value> {
    let names = files::list(folder).unwrap();
    let texts = names.into_iter().map(|name| std::fs::read_to_string(folder.join(name.text())).unwrap());
    texts.collect::<String>().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(lines: &[Value], event: &str) -> usize {
    lines.iter().filter(|line| line["event"] == event).count()
}

#[test]
fn all_that_was_handed_over_is_written_before_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let log = UsageLog::start(&settings(folder.path()), 7).unwrap();
    (1..=3000).for_each(|number| log.push(number, opened(number)));
    assert!(log.stop());
    let lines = lines(folder.path());
    assert_eq!((lines.len(), count(&lines, "opened")), (3002, 3000));
    assert_eq!((&lines[0]["event"], &lines[3001]["event"]), (&"started".into(), &"stopped".into()));
    assert_eq!((&lines[3000]["session"], &lines[3000]["transport"]), (&"00000007-3000".into(), &"events".into()));
    assert_eq!((log.counts().lines, log.counts().dropped, log.is_failing()), (3002, 0, false));
    // A thread that has ended writes nothing more.
    log.push(1, opened(1));
    assert_eq!((log.counts().dropped, log.is_failing()), (1, true));
}

#[test]
fn full_queue_drops_and_counts_and_the_caller_goes_on() {
    let (queue, events) = bounded(2);
    let log = UsageLog { queue: Some(queue), shared: Arc::default(), thread: Mutex::default() };
    (0..5).for_each(|number| log.push(0, opened(number)));
    assert_eq!((log.counts().dropped, events.len()), (3, 2));
    let off = UsageLog::none();
    off.push(0, opened(1));
    assert_eq!((off.is_on(), off.counts().dropped, off.stop()), (false, 0, true));
}

#[test]
fn flood_of_one_kind_of_security_event_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let log = UsageLog::start(&settings(folder.path()), 7).unwrap();
    const FLOOD: usize = 5000;
    for _ in 0..FLOOD {
        log.security(Security { event: "login_failed", ..Security::default() });
    }
    log.security(Security { event: "revoked", ..Security::default() });
    log.push(1, opened(1));
    assert!(log.stop());
    let lines = lines(folder.path());
    assert_eq!((count(&lines, "revoked"), count(&lines, "opened")), (1, 1));
    let failed = count(&lines, "login_failed");
    let suppressed: u64 =
        lines.iter().filter(|line| line["event"] == "suppressed").filter_map(|line| line["count"].as_u64()).sum();
    assert!(failed < FLOOD, "{failed}");
    assert_eq!((failed as u64 + suppressed, log.counts().suppressed), (FLOOD as u64, suppressed));
    assert!(lines.iter().any(|line| line["event"] == "suppressed" && line["cause"] == "login_failed"));
}

#[test]
fn what_cannot_be_written_is_counted_and_the_log_goes_on_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage");
    std::fs::create_dir(&path).unwrap();
    let log = UsageLog::start(&UsageSettings { bytes_max: 300, ..settings(&path) }, 7).unwrap();
    let until = |is_true: &dyn Fn() -> bool| {
        for _ in 0..1000 {
            if is_true() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{:?}", log.counts());
    };
    until(&|| log.counts().lines == 1);
    std::fs::remove_dir_all(&path).unwrap();
    // The file that is open takes some, and the next one cannot be made.
    until(&|| {
        log.push(1, opened(1));
        log.counts().lost > 0
    });
    assert!(log.is_failing());
    std::fs::create_dir(&path).unwrap();
    until(&|| {
        log.push(1, opened(2));
        !log.is_failing()
    });
    assert!(log.stop());
    assert!(count(&lines(&path), "opened") > 0);
}

#[test]
fn folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let problem = UsageLog::start(&settings(&file), 7).unwrap_err();
    assert!(problem.starts_with("usage_dir: ") && problem.contains("file: "), "{problem}");
    let _first = UsageLog::start(&settings(folder.path()), 7).unwrap();
    assert!(UsageLog::start(&settings(folder.path()), 8).unwrap_err().contains("expected a folder of its own"));
    let described = settings(folder.path()).to_string();
    assert!(described.contains("at most 4 files of 1048576 bytes"), "{described}");
}
