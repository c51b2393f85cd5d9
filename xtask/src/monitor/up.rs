//! The verb itself: `up`, and the dispatch to the other verbs.
//! Must not know how anything is started.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::Context;

use super::{
    arguments::{Arguments, Verb},
    background, check, down, links, logs,
    options::Options,
    stack::{Stack, Started},
    status,
};
use crate::{interrupt, steps};

/// Interval of checks for an interrupt or the end of a component.
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb.unwrap_or(Verb::Up(arguments.options)) {
        Verb::Up(options) => up(&options),
        Verb::Down { volumes } => down::run(volumes),
        Verb::Status => status::run(),
        Verb::Logs(arguments) => logs::run(&arguments),
        Verb::Check(options) => check::run(&options),
    }
}

fn up(options: &Options) -> anyhow::Result<ExitCode> {
    if options.in_background.is_some() {
        background::leave_the_terminal()?;
    } else if options.detach
        && let Some(choice) = background::is_needed(options)?
    {
        return background::start(options, &choice);
    }
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    steps::heading("monitor");
    let stack = match Stack::start(options)? {
        Started::Now(stack) => stack,
        Started::Already(state) => {
            say!("it runs already:\n{}", links::tell(&state));
            return Ok(ExitCode::SUCCESS);
        }
    };
    // The process that started it in the background prints this.
    if options.in_background.is_none() {
        say!("\n{}\n{}", links::tell(&stack.state), links::next(&stack.state));
    }
    if stack.is_left() {
        return Ok(ExitCode::SUCCESS);
    }
    stay(*stack)
}

/// Waits until a signal comes or a component ends.
pub(crate) fn stay(mut stack: Stack) -> anyhow::Result<ExitCode> {
    while !interrupt::caught() {
        if let Some(trouble) = stack.trouble() {
            stack.stop();
            anyhow::bail!(trouble);
        }
        thread::sleep(POLL);
    }
    stack.stop();
    Ok(ExitCode::SUCCESS)
}
