//! A temporary folder and its keeper process: a shell that stops the server and removes the folder when its input
//! ends. That happens when the [`Keeper`] is dropped, and also when this program is killed.
//! Must not know which server it is.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{account::Account, random};
use crate::interrupt;

/// Number of log lines that are shown if a server does not start.
const LOG_LINES: usize = 20;

/// Timeout for a command of a keeper. The slowest is the creation of the first tables on a busy disk.
const PATIENCE: Duration = Duration::from_secs(300);
/// Timeout for stopping the server and removing the folder.
const CLEANUP: Duration = Duration::from_secs(60);
/// Interval of checks for an interrupt.
const POLL: Duration = Duration::from_millis(50);

/// A folder, its keeper process, and the server in it, which may be stopped.
#[derive(Debug)]
pub(crate) struct Keeper {
    process: Child,
    /// Open until the folder is removed, or until a keeper that does not respond is abandoned.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    account: Account,
}

impl Keeper {
    /// A new folder for a server that ends at `signal`, for example `TERM`.
    pub(crate) fn new(name: &str, account: Account, signal: &str) -> anyhow::Result<Self> {
        let script = include_str!("keeper.sh");
        Self::start(name, account, |folder| {
            let mut shell = account.command("/bin/sh", folder);
            shell.args(["-c", script, "batchsql-keeper"]).arg(folder).arg(signal).stderr(Stdio::null());
            shell
        })
    }

    /// A new folder with another keeper process, which understands the same commands. The process creates the folder and
    /// says `created`: a folder without a process that removes it would stay if this program is killed.
    pub(crate) fn start(name: &str, account: Account, shell: impl Fn(&Path) -> Command) -> anyhow::Result<Self> {
        let folder = account.temporary().join(format!("batchsql-{name}-{:08x}", random::number()?));
        // One at a time: on systems that cannot create a private pipe atomically (macOS), a keeper that is started
        // meanwhile would hold the input of this one open.
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let started = shell(&folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start /bin/sh");
        drop(one);
        let mut process = started?;
        let commands = process.stdin.take();
        let mut answers = BufReader::new(process.stdout.take().expect("it was piped"));
        let mut answer = String::new();
        if answers.read_line(&mut answer).is_err() || answer.trim() != "created" {
            drop(commands);
            process.wait().context("cannot wait for the keeper of a server")?;
            anyhow::bail!("cannot create the folder {}", folder.display());
        }
        Ok(Self { process, commands, answers, folder, account })
    }

    /// Creates a folder outside of this one for the server's user, unless it exists.
    pub(crate) fn provide(&mut self, folder: &Path) -> anyhow::Result<()> {
        if !folder.exists() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
            self.account.own(folder)?;
        }
        anyhow::ensure!(
            self.can_write(folder),
            "the user of this server cannot write into {}; choose a folder that this user can reach",
            folder.display()
        );
        Ok(())
    }

    /// The folder of the server. Only its user and this program can read it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sets what `launch` starts: a program that stays in the foreground, and its arguments.
    pub(crate) fn set_program(&self, program: &Path, arguments: &[String]) -> anyhow::Result<()> {
        self.write("run", &command_line(program, arguments)?)
    }

    /// Writes a file that only the server's user can read. It creates a new file each time: the folder belongs to that
    /// user, and root must not follow another user's link.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;

        let path = self.folder.join(name);
        let write = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // Does not follow links.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            self.account.own_file(&file)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a file that may be in a subfolder. It is written as the server's user, because subfolders may be links of
    /// that user.
    pub(crate) fn write_within(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        const SCRIPT: &str = r#"umask 077 && mkdir -p "$(dirname "$0")" && cat >"$0""#;
        self.run(Path::new("/bin/sh"), &["-c", SCRIPT, name], text).with_context(|| format!("cannot write {name}"))
    }

    /// Runs a program in the folder, as the server's user, until it ends; its output goes to the log. The keeper starts
    /// it, so that the folder is not removed while the program runs.
    pub(crate) fn run(&mut self, program: &Path, arguments: &[&str], input: &str) -> anyhow::Result<()> {
        interrupt::check()?;
        self.write("prepare", &command_line(program, arguments)?)?;
        self.write("input", input)?;
        let outcome = self.tell("prepare");
        interrupt::check()?;
        outcome.with_context(|| format!("{} failed", program.display()))
    }

    /// Sends a command to the keeper, for example `launch`, `stop` or `kill`, and waits until it is done.
    pub(crate) fn tell(&mut self, command: &str) -> anyhow::Result<()> {
        self.tell_within(command, PATIENCE)
    }

    /// The same with a limit. After a timeout or an interrupt the keeper is abandoned, because its late answer would be
    /// taken for that to the next command.
    pub(crate) fn tell_within(&mut self, command: &str, limit: Duration) -> anyhow::Result<()> {
        let commands = self.commands.as_mut().context("the keeper of a server was abandoned")?;
        writeln!(commands, "{command}").context("the keeper of a server has ended")?;
        let answer = self.answer(limit).inspect_err(|_| self.give_up())?;
        anyhow::ensure!(
            answer.trim() == command,
            "the keeper could not {command} the server; the end of its log:\n{}",
            self.log()
        );
        Ok(())
    }

    fn answer(&mut self, limit: Duration) -> anyhow::Result<String> {
        let start = Instant::now();
        while !self.has_answered()? {
            interrupt::check()?;
            anyhow::ensure!(
                start.elapsed() < limit,
                "the keeper of a server did not respond for {} s; the end of its log:\n{}",
                limit.as_secs_f32(),
                self.log()
            );
        }
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("the keeper of a server does not respond")?;
        Ok(answer)
    }

    /// Waits briefly for an answer. An answer is one short line, which arrives at once.
    fn has_answered(&self) -> anyhow::Result<bool> {
        use rustix::{
            event::{PollFd, PollFlags, Timespec, poll},
            io::Errno,
        };

        let moment = Timespec::try_from(POLL).expect("it is short");
        match poll(&mut [PollFd::new(self.answers.get_ref(), PollFlags::IN)], Some(&moment)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("cannot wait for the keeper of a server"),
        }
    }

    /// Signals the keeper's current command, then closes its input. In this order, so that the signal does not end the
    /// cleanup.
    fn give_up(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        drop(self.commands.take());
    }

    /// Sends a signal to the process group of the keeper.
    fn signal(&self, signal: rustix::process::Signal) {
        // Its group id cannot be reused before it was waited for. It may have ended.
        let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(&self.process), signal);
    }

    /// Whether the keeper ends within a limit.
    fn ends_within(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if start.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Whether its user can write into a folder.
    pub(crate) fn can_write(&mut self, folder: &Path) -> bool {
        let Some(folder) = folder.to_str() else { return false };
        self.run(Path::new("/bin/sh"), &["-c", r#"test -d "$0" && test -w "$0" && test -x "$0""#, folder], "").is_ok()
    }

    /// The log of the server.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Whether the server has ended unexpectedly.
    pub(crate) fn has_ended(&self) -> bool {
        self.folder.join("ended").exists()
    }

    /// The end of the server's log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.commands.take());
        if !self.ends_within(CLEANUP) {
            eprintln!("{} is not cleaned up after {} s; ending it by force", self.folder.display(), CLEANUP.as_secs());
            self.signal(rustix::process::Signal::KILL);
            let _ = self.process.wait();
        }
        // A test run as root may have created files that the server's user cannot remove.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program and its arguments, for the shell.
fn command_line(program: &Path, arguments: &[impl AsRef<str>]) -> anyhow::Result<String> {
    let program = program.to_str().with_context(|| format!("the path of {} is not UTF-8", program.display()))?;
    let words: Vec<_> = arguments.iter().map(|argument| quoted(argument.as_ref())).collect();
    Ok(format!("exec {} {}\n", quoted(program), words.join(" ")))
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(script: &str) -> Keeper {
        let keeper = Keeper::new("test", Account::Caller, "TERM").unwrap();
        keeper.set_program(Path::new("/bin/sh"), &["-c".into(), script.into()]).unwrap();
        keeper
    }

    fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn words_reach_a_program_unchanged() {
        let words = ["plain", "", "two words", "it's", "$HOME `x` \"q\" \\ *", "--save"];
        let mut keeper = Keeper::new("test", Account::Caller, "TERM").unwrap();
        let arguments: Vec<String> = ["-c", r#"for word; do echo "<$word>"; done"#, "sh"].map(String::from).to_vec();
        keeper.set_program(Path::new("/bin/sh"), &[arguments, words.map(String::from).to_vec()].concat()).unwrap();
        keeper.tell("launch").unwrap();
        wait_for("it ends", || keeper.has_ended());
        assert_eq!(keeper.log(), words.map(|word| format!("<{word}>")).join("\n"));
    }

    #[test]
    fn a_folder_that_exists_is_not_taken() {
        let other = keeper("");
        let error = Keeper::start("test", Account::Caller, |_| {
            let mut shell = Command::new("/bin/sh");
            let script = include_str!("keeper.sh");
            shell.args(["-c", script, "batchsql-keeper"]).arg(other.folder()).arg("TERM").stderr(Stdio::null());
            shell
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("cannot create the folder"));
        assert!(other.folder().exists());
    }

    #[test]
    fn a_server_is_stopped_and_started_again() {
        let mut keeper = keeper("trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.05; done");
        for round in 1..=2 {
            keeper.tell("launch").unwrap();
            wait_for("it starts", || keeper.log().lines().filter(|line| *line == "up").count() == round);
            keeper.tell("stop").unwrap();
            assert_eq!(keeper.log().lines().filter(|line| *line == "asked").count(), round);
            assert!(keeper.has_ended());
        }
        keeper.tell("stop").unwrap();
    }

    #[test]
    fn a_command_may_come_twice() {
        let mut keeper = keeper("trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.05; done");
        let folder = keeper.folder().to_owned();
        keeper.tell("launch").unwrap();
        wait_for("it starts", || keeper.log() == "up");
        let pid = fs::read_to_string(folder.join("pid")).unwrap();
        keeper.tell("launch").unwrap();
        assert_eq!(fs::read_to_string(folder.join("pid")).unwrap(), pid);
        for end in ["stop", "stop", "kill", "kill"] {
            keeper.tell(end).unwrap();
        }
        assert_eq!(keeper.log(), "up\nasked");
        // A server that has ended starts again.
        keeper.set_program(Path::new("/bin/sh"), &["-c".into(), "echo again".into()]).unwrap();
        for rounds in 1..=2 {
            keeper.tell("launch").unwrap();
            wait_for("it ends", || keeper.has_ended());
            assert_eq!(keeper.log().lines().filter(|line| *line == "again").count(), rounds);
        }
    }

    #[test]
    fn a_killed_server_is_not_asked() {
        let mut keeper = keeper("trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.05; done");
        keeper.tell("launch").unwrap();
        wait_for("it starts", || keeper.log() == "up");
        keeper.tell("kill").unwrap();
        assert!(keeper.has_ended());
        assert!(!keeper.log().contains("asked"), "{}", keeper.log());
    }

    #[test]
    fn nothing_is_left_when_it_is_dropped() {
        let mut keeper = keeper("trap 'touch \"$0\"; exit' TERM; echo up; while :; do sleep 0.05; done");
        let folder = keeper.folder().to_owned();
        keeper.tell("launch").unwrap();
        wait_for("it starts", || keeper.log() == "up");
        let pid = fs::read_to_string(folder.join("pid")).unwrap();
        drop(keeper);
        assert!(!folder.exists());
        assert!(!Command::new("kill").args(["-0", pid.trim()]).stderr(Stdio::null()).status().unwrap().success());
    }

    #[test]
    fn one_that_does_not_answer_is_given_up() {
        let mut keeper = keeper("");
        let folder = keeper.folder().to_owned();
        keeper.write("prepare", "exec sleep 600").unwrap();
        keeper.write("input", "").unwrap();
        let start = Instant::now();
        let error = keeper.tell_within("prepare", Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("did not respond for 0.2 s"), "{error:#}");
        // Its late answer would be taken for that to the next command.
        assert!(keeper.tell("stop").unwrap_err().to_string().contains("abandoned"));
        drop(keeper);
        // It was not killed.
        assert!(start.elapsed() < CLEANUP, "{:?}", start.elapsed());
        assert!(!folder.exists());
    }

    #[test]
    fn a_file_is_not_written_where_a_link_leads() {
        use std::os::unix::fs::{MetadataExt, symlink};

        let (keeper, other) = (keeper(""), keeper(""));
        let (target, link) = (other.folder().join("target"), keeper.folder().join("file"));
        fs::write(&target, "kept").unwrap();
        symlink(&target, &link).unwrap();
        for text in ["first", "second"] {
            keeper.write("file", text).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
            assert_eq!(fs::read_to_string(&link).unwrap(), text);
            assert_eq!(link.symlink_metadata().unwrap().mode(), 0o100_600);
        }
    }

    #[test]
    fn files_are_written_within_folders() {
        use std::os::unix::fs::MetadataExt;

        let account = Account::unprivileged(&[]).unwrap();
        let mut keeper = Keeper::new("test", account, "TERM").unwrap();
        for text in ["first", "it's the second"] {
            keeper.write_within("a b/c/file", text).unwrap();
            let file = keeper.folder().join("a b/c/file");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            let owner = fs::metadata(keeper.folder()).unwrap().uid();
            let data = file.metadata().unwrap();
            assert_eq!((data.uid(), data.mode()), (owner, 0o100_600));
        }
        let error = keeper.write_within("a b/c", "").unwrap_err();
        assert!(format!("{error:#}").contains("cannot write a b/c"), "{error:#}");
    }

    #[test]
    fn what_a_test_puts_into_the_folder_goes_with_it() {
        let keeper = Keeper::new("test", Account::unprivileged(&[]).unwrap(), "TERM").unwrap();
        let folder = keeper.folder().to_owned();
        fs::create_dir_all(folder.join("not/of the server's user")).unwrap();
        drop(keeper);
        assert!(!folder.exists());
    }

    #[test]
    fn a_program_that_fails_shows_its_log() {
        let mut keeper = keeper("");
        let error = keeper.run(Path::new("/bin/sh"), &["-c", "echo this is why; exit 3"], "").unwrap_err();
        assert!(format!("{error:#}").contains("this is why"), "{error:#}");
        keeper.run(Path::new("/bin/sh"), &["-c", "read word; echo \"<$word>\""], "input\n").unwrap();
        assert!(keeper.log().ends_with("<input>"), "{}", keeper.log());
    }
}
