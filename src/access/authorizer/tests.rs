//! Questions and answers over a server that each test plays.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::*;
use crate::access::AccessSettings;
use crate::access::tests::{access_with, signed_token};
use crate::identity::Revocation;
use crate::ingest::transport::address::Address;
use crate::ingest::transport::post::PostServer;
use crate::tls::{Connector, Roots};
use crate::wake::SleepPlace;

const TOKEN: &[u8] = b"an-opaque-token-of-a-user";
const ANSWER: &str = r#"{"user":"u-17","expires_in_s":300,"rights":{"products":["L1"]}}"#;

/// The inbox of a shard that is awake.
pub(super) fn inbox() -> Arc<Inbox> {
    let event = || -> OwnedFd { eventfd(0, EventfdFlags::empty()).unwrap() };
    Arc::new(Inbox::new(Arc::new(ShardWaker::new(event(), event()))))
}

/// An authorizer that answers each request when the test says how.
struct Server {
    settings: AuthorizerSettings,
    questions: Receiver<String>,
    answers: Sender<(u16, String)>,
}

impl Server {
    fn start(cache_s: u64, deadline: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/authorize", listener.local_addr().unwrap());
        let (asked, questions) = mpsc::channel();
        let (answers, to_answer) = mpsc::channel::<(u16, String)>();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mut reader, mut line, mut length) = (BufReader::new(&stream), String::new(), 0);
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                // The test may be over.
                let _ = asked.send(String::from_utf8(body).unwrap());
                let Ok((status, body)) = to_answer.recv() else { return };
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
                let text = format!("{head}Content-Type: application/json\r\n\r\n{body}");
                let _ = (&stream).write_all(text.as_bytes());
            }
        });
        let connector = Connector::new(&Roots::System).unwrap();
        let address = Address::parse(&url, SCHEMES).unwrap();
        let server = Arc::new(PostServer::new(address, connector, deadline, ANSWER_BYTES_MAX));
        let settings = AuthorizerSettings { server, requests_max: 4, cache_s };
        Self { settings, questions, answers }
    }

    fn access(&self) -> Arc<Access> {
        let access = Arc::new(access_with(Some(self.settings.clone())));
        access.authorizer.start().unwrap();
        access
    }

    /// Awaits the next question, and answers it.
    fn answer(&self, status: u16, body: &str) -> String {
        let question = self.questions.recv().unwrap();
        self.answers.send((status, body.to_owned())).unwrap();
        question
    }
}

const LONG: Duration = Duration::from_secs(30);

fn ask(access: &Arc<Access>, inbox: &Arc<Inbox>, token: &[u8], number: u64) -> Option<Answer> {
    let asker = Asker { client: Some([192, 0, 2, 7].into()), is_fresh: false, inbox, number };
    match access.find_client(token, asker, Now::present()) {
        Found::Known(answer) => Some(answer),
        Found::Asked => None,
    }
}

/// The next answers of an inbox, as its shard concludes them.
fn answers(access: &Access, inbox: &Inbox, count: usize) -> Vec<(u64, Answer)> {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(inbox.take().into_iter().map(|(number, answer)| (number, access.conclude(answer))));
        std::thread::yield_now();
    }
    found
}

fn cause(answer: Answer) -> Option<Cause> {
    answer.err().map(|denial| denial.cause)
}

#[test]
fn token_is_asked_about_once_and_its_answer_is_used_again() {
    let server = Server::start(60, LONG);
    let (access, [one, other]) = (server.access(), [inbox(), inbox()]);
    for (inbox, number) in [(&one, 1), (&one, 2), (&other, 1)] {
        assert!(ask(&access, inbox, TOKEN, number).is_none());
    }
    let question = server.answer(200, ANSWER);
    assert_eq!(question, r#"{"token":"an-opaque-token-of-a-user","purpose":"subscribe","address":"192.0.2.7"}"#);
    let mut found = answers(&access, &one, 2);
    found.extend(answers(&access, &other, 1));
    assert!(found.iter().all(|(_, answer)| &*answer.as_ref().unwrap().user == "u-17"), "{found:?}");
    let known = ask(&access, &one, TOKEN, 3).expect("it is kept").unwrap();
    assert!(known.may_see("EQ-A", tickcast_protocol::Channel::Quote, 0));
    let AuthorizerCounts { requests, cached, joined, kept, under_way, .. } = access.authorizer_counts();
    assert_eq!((requests, cached, joined, kept, under_way, access.accepted()), (1, 1, 2, 1, 0, 4));
    assert!(server.questions.try_recv().is_err());
}

#[test]
fn shard_that_sleeps_is_woken_by_its_answer() {
    let event = || -> OwnedFd { eventfd(0, EventfdFlags::NONBLOCK).unwrap() };
    for place in [SleepPlace::Ring, SleepPlace::Executor] {
        let server = Server::start(60, LONG);
        let (access, events) = (server.access(), [event(), event()]);
        let [ring, executor] = events.each_ref().map(|event| event.try_clone().unwrap());
        let waker = Arc::new(ShardWaker::new(ring, executor));
        let inbox = Arc::new(Inbox::new(waker.clone()));
        assert!(ask(&access, &inbox, TOKEN, 1).is_none());
        waker.prepare_sleep(place);
        assert!(!inbox.has_answers(), "it may sleep");
        server.answer(200, ANSWER);
        while access.authorizer_counts().kept == 0 {
            std::thread::yield_now();
        }
        let event = &events[usize::from(place == SleepPlace::Executor)];
        let deadline = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        let woken = rustix::event::poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&deadline)).unwrap();
        assert_eq!(woken, 1, "{place:?}");
        assert!(inbox.has_answers());
    }
}

#[test]
fn another_address_or_a_refresh_is_asked_about_anew() {
    let server = Server::start(60, LONG);
    let (access, inbox) = (server.access(), inbox());
    let asks = |client: [u8; 4], is_fresh| {
        let asker = Asker { client: Some(client.into()), is_fresh, inbox: &inbox, number: 1 };
        let is_asked = matches!(access.find_client(TOKEN, asker, Now::present()), Found::Asked);
        if is_asked {
            server.answer(200, ANSWER);
            answers(&access, &inbox, 1).pop().unwrap().1.unwrap();
        }
        is_asked
    };
    assert!(asks([192, 0, 2, 7], false) && asks([192, 0, 2, 8], false) && asks([192, 0, 2, 7], true));
    assert!(!asks([192, 0, 2, 7], false) && !asks([192, 0, 2, 8], false));
}

#[test]
fn tokens_of_issuers_and_api_keys_are_not_sent_away() {
    let server = Server::start(60, LONG);
    let (access, inbox) = (server.access(), inbox());
    let (own, foreign) = (signed_token("https://id.example.com"), signed_token("https://other.example.com"));
    let forged = own.rsplit_once('.').unwrap().0.to_owned() + ".AAAA";
    let long = "x".repeat(8193);
    for token in
        [&forged, "tk_0123456789abcdefghijkl", &long, "short", "with a space in it", "with-\u{e9}-in-it-and-more"]
    {
        let answer = ask(&access, &inbox, token.as_bytes(), 1).expect(token);
        assert!(matches!(cause(answer), Some(Cause::Invalid | Cause::TooLong)), "{token}");
    }
    assert!(server.questions.try_recv().is_err());
    assert!(ask(&access, &inbox, foreign.as_bytes(), 1).is_none());
    assert!(server.answer(200, ANSWER).contains(&foreign));
    assert!(answers(&access, &inbox, 1).pop().unwrap().1.is_ok());
}

#[test]
fn refusals_are_kept_for_a_while_and_failures_are_not() {
    let server = Server::start(60, LONG);
    let (access, inbox) = (server.access(), inbox());
    for (nth, (status, expected, is_kept)) in
        [(401, Cause::Invalid, true), (403, Cause::Forbidden, true), (500, Cause::Unchecked, false)]
            .into_iter()
            .enumerate()
    {
        let token = format!("an-opaque-token-{nth}");
        assert!(ask(&access, &inbox, token.as_bytes(), 1).is_none());
        server.answer(status, ANSWER);
        assert_eq!(cause(answers(&access, &inbox, 1).pop().unwrap().1), Some(expected));
        assert_eq!(access.is_authorizer_failing(), !is_kept);
        let again = ask(&access, &inbox, token.as_bytes(), 2);
        assert_eq!(again.is_some(), is_kept, "{status}");
    }
}

#[test]
fn nobody_is_let_in_without_an_answer() {
    let server = Server::start(60, Duration::from_millis(30));
    let (access, inbox) = (server.access(), inbox());
    assert!(ask(&access, &inbox, TOKEN, 1).is_none());
    let (_, answer) = answers(&access, &inbox, 1).pop().unwrap();
    let denial = answer.unwrap_err();
    assert_eq!(denial.cause, Cause::Late);
    assert!(denial.detail.contains("no answer within 30 ms (authorizer_timeout_ms)"), "{denial:?}");
    // A server that is gone, and a thread that does not run.
    let gone = Server::start(60, LONG);
    let connector = Connector::new(&Roots::System).unwrap();
    let address = Address::parse("http://127.0.0.1:1/", SCHEMES).unwrap();
    let nowhere = Arc::new(PostServer::new(address, connector, LONG, ANSWER_BYTES_MAX));
    let access = Arc::new(access_with(Some(AuthorizerSettings { server: nowhere, ..gone.settings.clone() })));
    for _ in 0..2 {
        assert!(ask(&access, &inbox, TOKEN, 1).is_none());
        assert_eq!(cause(answers(&access, &inbox, 1).pop().unwrap().1), Some(Cause::Unchecked));
        access.authorizer.start().unwrap();
    }
    assert_eq!(access.authorizer_counts().under_way, 0);
}

#[test]
fn too_many_questions_are_refused_at_once() {
    let server = Server::start(60, LONG);
    let (access, inbox) = (server.access(), inbox());
    assert!(ask(&access, &inbox, TOKEN, 1).is_none());
    let busy = ask(&access, &inbox, b"another-opaque-token", 2).expect("an address has a quarter of four");
    assert_eq!(cause(busy), Some(Cause::Busy));
    server.answer(200, ANSWER);
    answers(&access, &inbox, 1);
    assert!(ask(&access, &inbox, b"another-opaque-token", 2).is_none());
}

#[test]
fn revocation_holds_for_answers_that_are_kept_and_that_come() {
    let server = Server::start(60, LONG);
    let (access, inbox) = (server.access(), inbox());
    assert!(ask(&access, &inbox, TOKEN, 1).is_none());
    let revocation: Revocation = serde_json::from_str(r#"{"user":"u-17"}"#).unwrap();
    access.revoke(revocation, Now::present()).unwrap();
    server.answer(200, ANSWER);
    assert_eq!(cause(answers(&access, &inbox, 1).pop().unwrap().1), Some(Cause::Revoked));
    assert_eq!(cause(ask(&access, &inbox, TOKEN, 1).unwrap()), Some(Cause::Revoked));
    // By the token: its hash, or what the answer says.
    for (token, user, jti) in [
        ("an-opaque-token-of-u-18", r#""u-18""#, "b8b3bf905a17cde5fcfc7eff4b46f56be444c1e11f4dbf35f5d24725f8f9af04"),
        ("an-opaque-token-of-u-19", r#""u-19","jti":"t-19""#, "t-19"),
    ] {
        assert!(ask(&access, &inbox, token.as_bytes(), 1).is_none());
        server.answer(200, &ANSWER.replace(r#""u-17""#, user));
        let principal = answers(&access, &inbox, 1).pop().unwrap().1.unwrap();
        assert_eq!(principal.jti.as_deref(), Some(jti));
        let revocation = Revocation { jti: Some(jti.to_owned()), user: None, issued_before: None, until: 0 };
        access.revoke(revocation, Now::present()).unwrap();
        assert_eq!(cause(ask(&access, &inbox, token.as_bytes(), 1).unwrap()), Some(Cause::Revoked));
    }
}

#[test]
fn changed_settings_forget_answers_and_find_rights_anew() {
    let server = Server::start(60, LONG);
    let (access, inbox) = (server.access(), inbox());
    let settings = |access: &Access| access.policy().settings.clone();
    let quote = |principal: &Principal| principal.may_see("EQ-A", tickcast_protocol::Channel::Quote, 0);
    assert!(ask(&access, &inbox, TOKEN, 1).is_none());
    server.answer(200, ANSWER);
    let first = answers(&access, &inbox, 1).pop().unwrap().1.unwrap();
    assert!(quote(&first));
    // Asked by the former settings, answered by the new ones.
    assert!(ask(&access, &inbox, b"another-opaque-token", 2).is_none());
    let mut changed = settings(&access);
    changed.products.get_mut("L1").unwrap().rules.clear();
    access.apply(changed, 0).unwrap();
    let Verdict::Renew(renewed) = access.review(&first, true) else { panic!("its product has changed") };
    assert!(!quote(&renewed));
    server.answer(200, ANSWER);
    assert!(!quote(&answers(&access, &inbox, 1).pop().unwrap().1.unwrap()));
    assert!(ask(&access, &inbox, TOKEN, 3).is_none(), "it is asked about again");
    access.apply(AccessSettings { authorizer: None, ..settings(&access) }, 0).unwrap();
    assert!(matches!(access.review(&first, true), Verdict::Close(_)));
    server.answer(200, ANSWER);
    assert_eq!(cause(answers(&access, &inbox, 1).pop().unwrap().1), Some(Cause::Unchecked));
    assert_eq!(cause(ask(&access, &inbox, TOKEN, 4).unwrap()), Some(Cause::Invalid), "there is none to ask");
}

#[test]
fn answer_is_kept_no_longer_than_it_holds() {
    let now = Now { wall_s: 1000, ns: 7 };
    let until = |expires_s| {
        let none = Arc::new(Rights::none());
        let principal = Principal::new(crate::identity::Kind::Authorized, "u", none);
        Ok(Arc::new(Principal { expires_s: Some(expires_s), ..principal }))
    };
    let refused = |cause| Err(Denial { cause, detail: String::new() });
    for (answer, cache_s, seconds) in [
        (until(1300), 60, Some(60)),
        (until(1030), 60, Some(30)),
        (until(1000), 60, None),
        (until(900), 60, None),
        (until(1300), 0, None),
        (refused(Cause::Invalid), 60, Some(5)),
        (refused(Cause::Forbidden), 2, Some(2)),
        (refused(Cause::Late), 60, None),
        (refused(Cause::Unchecked), 60, None),
        (refused(Cause::Full), 60, None),
    ] {
        let expected_ns = seconds.map(|seconds: u64| 7 + seconds * 1_000_000_000);
        assert_eq!(kept_until_ns(&answer, cache_s, now), expected_ns, "{answer:?}");
    }
}
