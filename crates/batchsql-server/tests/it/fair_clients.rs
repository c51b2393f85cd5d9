//! Memory for the rows of requests, with clients that take all they can and come again at once: others get theirs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::{NDJSON, head, post};
use crate::program::{LONG, Place, Running, until};

const GREEDY: (&str, &str) = ("Authorization", "Bearer greedy");
const POLITE: (&str, &str) = ("Authorization", "Bearer polite");

/// A row of about this many bytes.
fn row(id: usize, bytes: usize) -> String {
    format!("{{\"id\":{id},\"note\":\"{}\"}}\n", "x".repeat(bytes))
}

fn start(place: &Place, http: &str) -> Running {
    place.sql("CREATE TABLE orders (id INTEGER NOT NULL, note TEXT NOT NULL)");
    place.start(&format!(
        "{}[[tables]]\nname = \"orders\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[http]\nlisten = \
         \"127.0.0.1:0\"\n{http}[run]\ndrain_for = \"60s\"\n",
        place.database()
    ))
}

/// Twenty connections that ignore `Retry-After`, until this is stopped.
struct Greedy {
    is_over: Arc<AtomicBool>,
    connections: Vec<std::thread::JoinHandle<()>>,
}

impl Greedy {
    fn start(request: impl Fn(usize) + Clone + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let connection = |number| {
            let (is_over, request) = (Arc::clone(&is_over), request.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    request(number);
                }
            })
        };
        let connections = (0..20).map(connection).collect();
        Self { is_over, connections }
    }

    /// Before they go on, `end` may end what they wait for.
    fn stop(self, end: impl FnOnce()) {
        self.is_over.store(true, Ordering::Relaxed);
        end();
        self.connections.into_iter().for_each(|connection| connection.join().unwrap());
    }
}

/// A request whose answer does not matter, as long as there is one.
fn send_greedily(at: SocketAddr, headers: &[(&str, &str)], body: &str, length: usize) {
    // At the end there is no server.
    let Ok(mut stream) = TcpStream::connect(at) else { return };
    stream.set_read_timeout(Some(LONG)).unwrap();
    let head = head("POST", "/v1/tables/orders/rows", headers, Some(length));
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let _ = stream.read_to_end(&mut Vec::new());
}

/// All of them hold rows, and their bodies do not end: another client finds memory at once.
#[test]
fn a_client_whose_bodies_stand_still_leaves_memory_to_others() {
    let place = Place::new();
    // 64 units of 16 KiB.
    let limits =
        "limits = { body_pause = \"10m\", capacity_time = \"200ms\", held = \"1MiB\", together = \"128KiB\" }\n";
    let token = |name: &str| format!("[[http.tokens]]\nname = \"{name}\"\ntoken = \"{name}\"\n");
    let program = start(&place, &[limits, &token("greedy"), &token("polite")].concat());
    let at = program.address();
    // Six units each. The row is there, and the body has one more byte.
    let greedy = Greedy::start(move |number| {
        let body = row(number, 90_000);
        send_greedily(at, &[NDJSON, GREEDY], &body, body.len() + 1);
    });
    let send = |client, bytes| post(at, "orders/rows", &[NDJSON, client], row(100, bytes));
    until(|| send(GREEDY, 90_000).status == 429, || "the client finds memory again and again".to_owned());
    // Five units. If that client had all the memory it can get, there were four.
    for number in 0..20 {
        let response = send(POLITE, 75_000);
        assert_eq!(response.status, 200, "request {number}: {response:?}");
    }
    assert_eq!(send(GREEDY, 90_000).status, 429, "it still has its part");
    greedy.stop(|| program.kill());
}

/// All are one client for the server, as behind a proxy. Bodies go on, and are refused when nobody gives memory back.
#[test]
fn a_request_comes_before_those_that_come_again() {
    let place = Place::new();
    // 32 units of 16 KiB.
    let limits = "limits = { capacity_time = \"60s\", held = \"512KiB\", together = \"512KiB\" }\n";
    let program = start(&place, limits);
    let at = program.address();
    // One unit after the other, and together forty, so nothing of it is ever stored.
    let greedy = Greedy::start(move |number| {
        let key = format!("greedy {number}");
        let body: String = (0..40).map(|id| row(id, 15_000)).collect();
        send_greedily(at, &[NDJSON, ("Idempotency-Key", &key)], &body, body.len());
    });
    // Nineteen units at once. They become free when those that hold some have ended: nobody that comes later begins before.
    for number in 0..10 {
        let response = post(at, "orders/rows", &[NDJSON], row(number, 300_000));
        assert_eq!(response.status, 200, "request {number}: {response:?}");
    }
    greedy.stop(|| ());
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 10);
}
