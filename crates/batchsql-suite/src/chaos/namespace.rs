//! Owns a network namespace for a writer, with a link that can drop every packet: the system then sends again what was not
//! acknowledged, as on a real network. It needs root and the programs `ip`, `tc`, `unshare` and `nsenter`.
//! Must not know writers or faults.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// The first of the addresses for measurements of networks, 198.18.0.0/15, of which a link has four.
const FIRST: u32 = 0xc612_0000;
const LINKS: u32 = 1 << 15;
/// Lives until its input ends, in the namespace.
const HOLD: &str = "echo ready; exec cat > /dev/null";

/// A namespace with one link to that of this program. It goes away when this is dropped or this program ends, and the link with it.
/// After a kill of this program in a silence, connections keep both until the system gives them up.
#[derive(Debug)]
pub(super) struct Namespace {
    holder: Holder,
    /// The names and addresses of the link: on the side of this program, and in the namespace.
    outer: Side,
    inner: Side,
}

/// A process in the namespace, which ends when this is dropped.
#[derive(Debug)]
struct Holder(Child);

#[derive(Debug)]
struct Side {
    name: String,
    address: Ipv4Addr,
    /// Fixed, so that nobody has to ask for it while nothing is delivered.
    hardware: String,
}

impl Side {
    fn new(number: u32, side: u8) -> Self {
        let address = Ipv4Addr::from_bits(FIRST + number * 4 + 1 + u32::from(side));
        let [.., c, d] = address.octets();
        // An interface has a name of at most 15 characters.
        Self { name: format!("bsql{number}n{side}"), address, hardware: format!("02:62:73:{side:02x}:{c:02x}:{d:02x}") }
    }

    /// Whether this program's side has an interface of this name.
    fn is_there(&self) -> bool {
        Path::new("/sys/class/net").join(&self.name).exists()
    }
}

impl Holder {
    fn start() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", HOLD]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut holder = Self(command.spawn().context("cannot run the program unshare")?);
        let mut line = String::new();
        let output = holder.0.stdout.take().context("its output is piped")?;
        let is_ready = BufReader::new(output).read_line(&mut line).is_ok() && line.trim() == "ready";
        ensure!(is_ready, "cannot make a network namespace, which needs root");
        Ok(holder)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    /// Makes a link to its namespace, with the first number from `first` on that is free.
    fn link(&self, first: u32) -> Result<(Side, Side)> {
        let id = self.id().to_string();
        for number in (0..LINKS).map(|next| (first % LINKS + next) % LINKS) {
            let (outer, inner) = (Side::new(number, 0), Side::new(number, 1));
            if outer.is_there() {
                continue;
            }
            let link = ["link", "add", &outer.name, "address", &outer.hardware, "type", "veth"];
            let peer = ["peer", "name", &inner.name, "address", &inner.hardware, "netns", &id];
            match run(Command::new("ip").args(link).args(peer)) {
                Ok(()) => return Ok((outer, inner)),
                // Another program has just made it.
                Err(_) if outer.is_there() => {}
                Err(error) => return Err(error),
            }
        }
        bail!("all {LINKS} links are in use; remove those of programs that have ended with `ip link del`")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// This process may not do it, or a program is missing.
    pub(super) fn new() -> Result<Self> {
        // Several programs may run on a machine.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::with_link(std::process::id() * 16 + NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn with_link(first: u32) -> Result<Self> {
        let holder = Holder::start()?;
        let (outer, inner) = holder.link(first)?;
        let namespace = Self { holder, outer, inner };
        namespace.connect()?;
        Ok(namespace)
    }

    fn connect(&self) -> Result<()> {
        let (outer, inner) = (&self.outer, &self.inner);
        for (side, other) in [(outer, inner), (inner, outer)] {
            let ip = |args: &[&str]| run(self.command_on(side, "ip").args(args));
            ip(&["address", "add", &format!("{}/30", side.address), "dev", &side.name])?;
            ip(&["link", "set", &side.name, "up"])?;
            let neighbour = ["neighbour", "replace", &other.address.to_string(), "lladdr", &other.hardware];
            run(self.command_on(side, "ip").args(neighbour).args(["dev", &side.name, "nud", "permanent"]))?;
        }
        Ok(())
    }

    /// Drops every packet in both directions, and tells nobody.
    pub(super) fn silence(&self) -> Result<()> {
        self.on_both(&["qdisc", "replace"], &["root", "blackhole"])
    }

    /// Delivers packets again. What was dropped is sent again by whoever has sent it.
    pub(super) fn resume(&self) -> Result<()> {
        self.on_both(&["qdisc", "del"], &["root"])
    }

    /// Also on the second side if the first one fails.
    fn on_both(&self, before: &[&str], after: &[&str]) -> Result<()> {
        let on = |side: &Side| run(self.command_on(side, "tc").args(before).args(["dev", &side.name]).args(after));
        let (outer, inner) = (on(&self.outer), on(&self.inner));
        outer.and(inner)
    }

    /// Whether nothing is on its way any more: no process has a connection, and the system has sent the rest of those that were
    /// given up, which takes longer and longer after a silence.
    pub(super) fn is_quiet(&self) -> Result<bool> {
        let table = format!("/proc/{}/net/tcp", self.holder.id());
        let table = std::fs::read_to_string(&table).with_context(|| format!("cannot read {table}"))?;
        Ok(!table.lines().skip(1).any(is_under_way))
    }

    /// The address of this program, for a process in the namespace.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.outer.address
    }

    /// A command that runs in the namespace. Its process is that of the program.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program.as_ref());
        command
    }

    fn command_on(&self, side: &Side, program: &str) -> Command {
        if side.name == self.outer.name { Command::new(program) } else { self.command(program) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // After a silence, connections of a writer that was killed keep the namespace until the system gives them up. Without this
        // its link would stay as long.
        let _ = Command::new("ip").args(["link", "del", &self.outer.name]).stderr(Stdio::null()).status();
    }
}

/// Whether a connection in the table of the system may still send something.
fn is_under_way(line: &str) -> bool {
    // Established, FIN-WAIT-1, CLOSE-WAIT, LAST-ACK, CLOSING.
    const SENDS: [&str; 5] = ["01", "04", "08", "09", "0B"];
    line.split_whitespace().nth(3).is_some_and(|state| SENDS.contains(&state))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let program = command.get_program().display();
    let Output { status, stderr, .. } = output.with_context(|| format!("cannot run the program {program}"))?;
    let text = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "{program} has ended with {status}: {}", text.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use batchsql_testserver::process::skip;

    use super::*;

    /// Sends a line back for each line, until the connection ends.
    const CLIENT: &str = r#"exec 3<> "/dev/tcp/$0/$1" && echo connected && while read line; do echo "$line" >&3; done"#;

    #[test]
    fn what_is_sent_in_the_silence_arrives_after_it() {
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(error) => return skip(&format!("{error:#}")),
        };
        let listener = TcpListener::bind((namespace.address(), 0)).unwrap();
        let (address, port) = (namespace.address().to_string(), listener.local_addr().unwrap().port().to_string());
        let mut client = namespace.command("bash");
        let mut client =
            client.args(["-c", CLIENT, &address, &port]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = client.stdin.take().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = BufReader::new(client.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "connected\n");
        let (arrived, arrivals) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() {
                arrived.send(byte[0]).unwrap();
            }
        });
        let limit = Duration::from_secs(60);
        lines.write_all(b"a\n").unwrap();
        assert_eq!([(); 2].map(|()| arrivals.recv_timeout(limit).unwrap()), *b"a\n");
        assert!(!namespace.is_quiet().unwrap());
        namespace.silence().unwrap();
        lines.write_all(b"b\n").unwrap();
        // Long enough that it would have come: without the silence it takes less than a millisecond.
        assert!(arrivals.recv_timeout(Duration::from_millis(300)).is_err(), "nothing arrives in the silence");
        // The end of the connection is sent after it, by the system, when the process is gone.
        client.kill().unwrap();
        client.wait().unwrap();
        assert!(!namespace.is_quiet().unwrap(), "the system has not sent it yet");
        namespace.resume().unwrap();
        assert_eq!([(); 2].map(|()| arrivals.recv_timeout(limit).unwrap()), *b"b\n");
        reader.join().unwrap();
        let begin = Instant::now();
        while !namespace.is_quiet().unwrap() {
            assert!(begin.elapsed() < limit, "all was received");
            std::thread::sleep(Duration::from_millis(5));
        }
        let link = format!("/sys/class/net/{}", namespace.outer.name);
        assert!(Path::new(&link).exists());
        drop(namespace);
        assert!(!Path::new(&link).exists(), "the link goes with the namespace");
    }

    #[test]
    fn a_number_that_is_in_use_is_not_taken_again() {
        let first = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(error) => return skip(&format!("{error:#}")),
        };
        let number: u32 = first.outer.name["bsql".len()..].split('n').next().unwrap().parse().unwrap();
        let second = Namespace::with_link(number).unwrap();
        assert!(first.outer.name != second.outer.name && first.outer.address != second.outer.address, "{second:?}");
        drop(second);
        assert!(first.outer.is_there());
    }

    /// A side that cannot be changed must not keep the other one silent.
    #[test]
    fn both_sides_are_tried() {
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(error) => return skip(&format!("{error:#}")),
        };
        let is_silent = || {
            let output =
                namespace.command("tc").args(["qdisc", "show", "dev", &namespace.inner.name]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("blackhole")
        };
        namespace.silence().unwrap();
        assert!(is_silent());
        run(Command::new("tc").args(["qdisc", "del", "dev", &namespace.outer.name, "root"])).unwrap();
        assert!(namespace.resume().is_err());
        assert!(!is_silent());
    }

    #[test]
    fn names_and_addresses_are_valid_and_differ() {
        let (first, last) = (Side::new(0, 0), Side::new(LINKS - 1, 1));
        assert_eq!(
            (first.address.to_string().as_str(), last.address.to_string().as_str()),
            ("198.18.0.1", "198.19.255.254")
        );
        assert!(last.name.len() <= 15 && first.hardware != Side::new(0, 1).hardware, "{last:?}");
    }
}
