//! The user of a server: never root.
//! Must not know any server.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

/// The user of a server's processes, and the owner of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// The user of this process.
    Caller,
    /// Another user, because this process runs as root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// The user of this process; for root, the first of these users that the system has, else `nobody`.
    pub(crate) fn unprivileged(users: &[&str]) -> anyhow::Result<Self> {
        if !is_root() {
            return Ok(Self::Caller);
        }
        let known = users.iter().chain(&["nobody"]).find_map(|user| {
            let (uid, gid) = (id(&["-u", user])?, id(&["-g", user])?);
            (uid != 0).then_some(Self::Other { uid, gid })
        });
        known.context("servers are not run as root, and this system has no user `nobody`; run this as another user")
    }

    /// A program that runs as this user, with a folder as its home, which need not exist yet. It inherits only the search
    /// paths from the environment: variables such as `PGDATA` or `MYSQL_HOME` are for other servers.
    pub(crate) fn command(self, program: impl AsRef<OsStr>, folder: &Path) -> Command {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(program);
        command.env_clear().current_dir("/");
        for variable in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
        command.env("LC_ALL", "C").env("HOME", folder).env("TMPDIR", folder);
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Changes the owner of an open file, independent of its current name.
    pub(crate) fn own_file(self, file: &File) -> io::Result<()> {
        match self {
            Self::Caller => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::fchown(file, Some(uid), Some(gid)),
        }
    }

    /// Changes the owner of a folder.
    pub(crate) fn own(self, path: &Path) -> anyhow::Result<()> {
        if let Self::Other { uid, gid } = self {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot change the owner of {} to the server's user", path.display()))?;
        }
        Ok(())
    }

    /// A folder in which this user can create and remove folders.
    pub(crate) fn temporary(self) -> PathBuf {
        let own = std::env::temp_dir();
        if self == Self::Caller || open_to_all(&own) { own } else { "/tmp".into() }
    }
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether every user can reach a folder and write into it.
fn open_to_all(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    let allows = |path: &Path, bits| path.metadata().is_ok_and(|data| data.permissions().mode() & bits == bits);
    allows(folder, 0o003) && folder.ancestors().all(|part| allows(part, 0o001))
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_never_runs_as_root() {
        match Account::unprivileged(&["root", "there-is-no-such-user"]).expect("every system has nobody") {
            Account::Caller => assert!(!is_root()),
            Account::Other { uid, gid } => {
                assert_eq!((Some(uid), Some(gid)), (id(&["-u", "nobody"]), id(&["-g", "nobody"])))
            }
        }
    }

    #[test]
    fn the_environment_of_a_server_is_its_own() {
        let command = Account::Caller.command("env", Path::new("/"));
        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        let allowed = ["HOME", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR"];
        assert!(names.iter().all(|name| allowed.iter().any(|allowed| name == allowed)), "{names:?}");
    }

    #[test]
    fn a_folder_is_open_when_all_above_it_are() {
        use std::{fs, os::unix::fs::PermissionsExt};

        let outer = std::env::temp_dir().join(format!("batchsql-open-{}", std::process::id()));
        let inner = outer.join("inner");
        fs::create_dir_all(&inner).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let check = |of_outer, of_inner, expected| {
            mode(&inner, of_inner);
            mode(&outer, of_outer);
            assert_eq!(open_to_all(&inner), expected, "{of_outer:o} {of_inner:o}");
        };
        check(0o755, 0o1777, true);
        check(0o755, 0o755, false);
        check(0o700, 0o1777, false);
        fs::remove_dir_all(&outer).unwrap();
    }
}
