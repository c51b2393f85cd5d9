//! A folder for one test, and the program that runs in it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// A folder that contains only the folders of servers, so that a test can see what is left.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        Self::within(std::env::temp_dir())
    }

    /// A folder with a short path, independent of TMPDIR.
    pub(crate) fn short() -> Self {
        Self::within("/tmp".into())
    }

    fn within(parent: PathBuf) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, because paths of sockets have a limit.
        let folder = parent.join(format!("xtask-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        // With the permissions of /tmp, because servers of another user use it.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        Self(folder)
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Writes a program into it. A shell writes the file, because a process that another test starts meanwhile could
    /// inherit the open file, and a file that is open for writing cannot be run ("text file busy").
    pub(crate) fn program(&self, name: &str, text: &str) {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(self.0.join(name)).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }

    /// Puts the programs of this folder first in the PATH of a command.
    pub(crate) fn put_first<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("PATH", format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap()))
    }

    /// The verb `server`, with its own folder.
    pub(crate) fn server(&self, arguments: &[&str]) -> Command {
        let mut command = self.xtask(&["server"]);
        command.args(arguments).env("BATCHSQL_NO_INSTALL", "1");
        command
    }

    /// A verb, with its own folder.
    pub(crate) fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(XTASK);
        command.args(arguments).env("TMPDIR", &self.0).env_remove("CI");
        command.env_remove("BATCHSQL_NO_INSTALL");
        // Tests must not see a stack of the user.
        command.env("BATCHSQL_MONITOR_STATE", "/there-is-no-monitor").env_remove("PROMETHEUS_PORT");
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The verb while it runs.
pub(crate) struct Running {
    pub(crate) process: Child,
    pub(crate) input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
    pub(crate) dsn: String,
}

impl Running {
    /// Starts a server and waits for it.
    pub(crate) fn server(command: &mut Command) -> Self {
        let mut running = Self::start(command);
        running.dsn = running.answer("READY");
        running
    }

    pub(crate) fn start(command: &mut Command) -> Self {
        Self::of(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// A verb that was started already.
    pub(crate) fn of(mut process: Child) -> Self {
        let input = process.stdin.take();
        let output = process.stdout.take().map(BufReader::new);
        Self { process, input, output, dsn: String::new() }
    }

    pub(crate) fn tell(&mut self, command: &str, answer: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        self.answer(answer)
    }

    /// The rest of the next line that begins with a word.
    pub(crate) fn answer(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.as_mut().unwrap().read_line(&mut line).unwrap() > 0, "it ended before it wrote {word}");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn address(&self) -> String {
        let address = self.dsn.rsplit('@').next().unwrap().rsplit("//").next().unwrap();
        address.split(['/', '?']).next().unwrap().to_owned()
    }

    /// Sends a signal, waits for a line of output, and returns the exit status of the verb.
    pub(crate) fn interrupt(mut self, signal: &str, answer: &str) -> ExitStatus {
        self.signal(signal);
        self.answer(answer);
        let mut rest = Vec::new();
        self.output.as_mut().unwrap().read_to_end(&mut rest).unwrap();
        self.process.wait().unwrap()
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Sends a signal, and returns the exit status of the verb.
    pub(crate) fn end_by(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let status = self.process.wait().unwrap();
        // Its input is open until here, so that was not the reason for its end.
        drop(self.input.take());
        status
    }
}

/// A test that fails leaves nothing running.
impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
            drop(self.input.take());
            let _ = self.process.wait();
        }
    }
}

pub(crate) fn within_seconds(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        // Programs that prepare a server run to their end, which is slow on a busy machine. Only a failing test waits for it.
        assert!(start.elapsed() < Duration::from_secs(300), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
