//! A database that is away, and clients that send more than there is memory for: they are told to wait, memory does not grow with
//! what they send, and every row that was accepted is in the table once.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::client::{JSON, NDJSON, begin, post, read_rows};
use crate::program::{LONG, Place, Running, until};

/// Bytes of a row.
const NOTE: usize = 8 << 10;

/// What is sent.
#[derive(Clone, Copy)]
struct Load {
    clients: u64,
    /// Of each client.
    rows: u64,
    /// Whether a request has a key.
    has_keys: bool,
}

impl Load {
    fn lines(self, client: u64) -> Vec<String> {
        let note = "x".repeat(NOTE);
        let ids = client * self.rows..(client + 1) * self.rows;
        ids.map(|id| format!("{{\"id\":{id},\"note\":\"{note}\"}}\n")).collect()
    }

    /// Sends the rows of a client from this one on. Returns the status, and how many were accepted; a client that is refused is
    /// told when it may come again, and with which row.
    fn send(self, at: SocketAddr, client: u64, next: usize) -> (u16, usize) {
        let key = format!("client {client}");
        let headers = [Some(NDJSON), self.has_keys.then_some(("Idempotency-Key", &*key))];
        let headers: Vec<_> = headers.into_iter().flatten().collect();
        let response = post(at, "orders/rows", &headers, self.lines(client)[next..].concat());
        let accepted = response.number("accepted");
        match response.status {
            200 => {}
            429 => {
                assert_eq!(response.header("retry-after"), Some("1"), "{response:?}");
                assert_eq!(response.number("next_line"), accepted + 1, "{response:?}");
            }
            _ => panic!("{response:?}"),
        }
        (response.status, accepted as usize)
    }

    /// Every row of every client is there once.
    fn check_rows(self, place: &Place) {
        let rows = (self.clients * self.rows) as i64;
        assert_eq!(place.number("SELECT count(*) FROM orders"), rows);
        assert_eq!(place.number("SELECT count(DISTINCT id) FROM orders"), rows);
        assert_eq!(place.number(&format!("SELECT count(*) FROM orders WHERE length(note) = {NOTE}")), rows);
    }
}

/// Without a key: a row that is written twice shows.
fn place() -> Place {
    let place = Place::new();
    place.sql("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER NOT NULL, note TEXT NOT NULL)");
    place
}

fn start(place: &Place, limits: &str, more: &str) -> Running {
    place.start(&format!(
        "{}[[tables]]\nname = \"orders\"\n[http]\nlisten = \"127.0.0.1:0\"\nlimits = {{ body_pause = \"10m\", {limits} \
         }}\n[run]\ndrain_for = \"60s\"\n{more}",
        place.database()
    ))
}

/// The program has not grown by more than this, in MiB.
fn check_growth(program: &Running, before: u64, most: u64) {
    let grown = (program.peak_memory() - before) >> 20;
    assert!(grown < most, "it has grown by {grown} MiB");
}

/// Sends the rows of a client, and what was refused again, until all are accepted. Tells whenever it is refused.
fn send_all(at: SocketAddr, load: Load, client: u64, refused: &Sender<u64>) {
    let mut next = 0;
    loop {
        let (status, accepted) = load.send(at, client, next);
        next += accepted;
        if status == 200 {
            assert_eq!(next, load.rows as usize, "client {client}");
            return;
        }
        // The test may have seen enough.
        let _ = refused.send(client);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends the rows of these clients at once.
fn send_at_once(
    at: SocketAddr,
    load: Load,
    clients: std::ops::Range<u64>,
) -> (Vec<std::thread::JoinHandle<()>>, Receiver<u64>) {
    let (refused, refusals) = channel();
    let sending = clients.map(|client| {
        let refused = refused.clone();
        std::thread::spawn(move || send_all(at, load, client, &refused))
    });
    (sending.collect(), refusals)
}

/// Waits until so many clients were refused.
fn wait_for(refusals: &Receiver<u64>, clients: u64) {
    let mut refused = BTreeSet::new();
    while (refused.len() as u64) < clients {
        refused.insert(refusals.recv_timeout(LONG).unwrap_or_else(|_| panic!("only {refused:?} were refused")));
    }
}

#[test]
fn a_buffer_that_is_full_for_long_takes_no_more_memory() {
    // 72 MiB.
    let load = Load { clients: 6, rows: 1_536, has_keys: false };
    let place = place();
    let pipeline = "[pipeline]\nbuffer_bytes = 4194304\nflush_size = 100\nretry_for = \"1h\"\n";
    let program = start(&place, "capacity_time = \"200ms\"", pipeline);
    let at = program.address();
    post(at, "orders/rows?wait=written", &[NDJSON], "");
    let lock = place.sql("BEGIN IMMEDIATE");
    let before = program.peak_memory();
    let (sending, refusals) = send_at_once(at, load, 0..load.clients);
    // The buffer has no place for all rows of a single one.
    wait_for(&refusals, load.clients);
    check_growth(&program, before, 24);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 0);
    lock.execute_batch("ROLLBACK").unwrap();
    // Then SQLite has its cache of pages.
    sending.into_iter().for_each(|client| client.join().unwrap());
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    load.check_rows(&place);
}

#[test]
fn requests_that_are_held_take_no_more_memory_than_they_may() {
    // 48 MiB.
    let load = Load { clients: 24, rows: 256, has_keys: true };
    let place = place();
    // One request is held, and a second one finds no space.
    let limits = "capacity_time = \"5s\", together = \"2560KiB\", held = \"2560KiB\"";
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\nexactly_once = \"shop\"\n";
    let program = start(&place, limits, durable);
    let at = program.address();
    let lock = place.sql("BEGIN IMMEDIATE");
    let before = program.peak_memory();
    // All rows of the first client, whose body has not ended: an empty line is missing.
    let body = load.lines(0).concat();
    let headers = [NDJSON, ("Idempotency-Key", "client 0")];
    let mut held = begin(at, "POST", "/v1/tables/orders/rows", &headers, Some(body.len() + 1));
    held.write_all(body.as_bytes()).unwrap();
    // A row that finds space until the first request is held, and holds nothing while it waits; its array has no end.
    let large = format!("[{{\"id\":0,\"note\":\"{}\"}}", "x".repeat(1_000_000));
    until(|| post(at, "orders/rows", &[JSON], &large).status == 429, || "it is not refused".to_owned());
    // All others at once, each of which wants more than is left.
    let others: Vec<_> = (1..load.clients).map(|client| std::thread::spawn(move || load.send(at, client, 0))).collect();
    for other in others {
        assert_eq!(other.join().unwrap(), (429, 0));
    }
    check_growth(&program, before, 24);
    held.write_all(b"\n").unwrap();
    let response = read_rows(held);
    assert_eq!((response.status, response.number("accepted")), (200, load.rows), "{response:?}");
    for client in 1..load.clients {
        assert_eq!(load.send(at, client, 0), (200, load.rows as usize));
    }
    // All rows are in the log, and none of them in the table.
    check_growth(&program, before, 40);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 0);
    lock.execute_batch("ROLLBACK").unwrap();
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    load.check_rows(&place);
}
