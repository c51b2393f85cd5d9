//! How the stack is started: with Docker if its engine responds and its containers can reach this machine, otherwise
//! with the programs of this machine.
//! Must not know how either is started.

use super::{compose::Reach, options::Forced, state::Way};

/// The way, and why, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) way: Way,
    pub(super) why: String,
    /// How containers reach this machine.
    pub(super) reach: Option<Reach>,
}

/// Docker is asked only if needed, because that may take seconds. Both checks return a reason.
pub(super) fn choose(
    forced: Option<Forced>,
    engine: impl FnOnce() -> Result<(), String>,
    reach: impl FnOnce() -> Result<Reach, String>,
) -> anyhow::Result<Choice> {
    if forced == Some(Forced::Local) {
        return Ok(Choice { way: Way::Local, why: "--local is set".to_owned(), reach: None });
    }
    match (engine().and_then(|()| reach()), forced) {
        (Ok(reach), forced) => {
            let why = if forced.is_some() { "--docker is set" } else { "its engine answers" };
            Ok(Choice { way: Way::Docker, why: why.to_owned(), reach: Some(reach) })
        }
        (Err(trouble), Some(_)) => {
            anyhow::bail!("cannot use Docker: {trouble}; without --docker the programs of this machine are used")
        }
        (Err(trouble), None) => Ok(Choice { way: Way::Local, why: trouble, reach: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        forced: Option<Forced>,
        engine: Result<(), &str>,
        reach: Result<Reach, &str>,
        expected: Option<(Way, &str)>,
    ) {
        let choice = choose(forced, || engine.map_err(str::to_owned), || reach.map_err(str::to_owned));
        let found = choice.as_ref().ok().map(|choice| (choice.way, choice.why.as_str()));
        assert_eq!(found, expected, "{choice:?}");
    }

    #[test]
    fn docker_is_used_when_it_works() {
        let (no, reach) = (Err("no Docker engine answers"), Ok(Reach::Loopback));
        check(None, Ok(()), reach.clone(), Some((Way::Docker, "its engine answers")));
        check(None, no, reach.clone(), Some((Way::Local, "no Docker engine answers")));
        check(None, Ok(()), Err("they cannot"), Some((Way::Local, "they cannot")));
        check(Some(Forced::Docker), Ok(()), reach.clone(), Some((Way::Docker, "--docker is set")));
        check(Some(Forced::Docker), no, reach, None);
        check(Some(Forced::Docker), Ok(()), Err("they cannot"), None);
    }

    #[test]
    fn an_engine_is_not_asked_when_nobody_wants_it() {
        let choice = choose(Some(Forced::Local), || panic!("must not be called"), || panic!("must not be called"));
        assert_eq!(choice.unwrap().way, Way::Local);
    }
}
