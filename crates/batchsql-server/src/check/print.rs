//! Owns how findings are shown.
//! Must not know how they are found.

use console::{Style, style};

use crate::check::finding::{Finding, Status};
use crate::exit::Exit;

/// For a person: one line each, with colours on a terminal.
pub(crate) fn text(findings: &[Finding], exit: Exit) {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    for finding in findings {
        let (mark, color) = match finding.status {
            Status::Ok => ("ok  ", Style::new().green()),
            Status::Warning => ("warn", Style::new().yellow()),
            Status::Failed => ("FAIL", Style::new().red().bold()),
            Status::Skipped => ("skip", Style::new().dim()),
        };
        let subject = if finding.subject.is_empty() { String::new() } else { format!("{}: ", finding.subject) };
        println!("{} {:width$}  {subject}{}", color.apply_to(mark), style(finding.check).bold(), finding.detail);
    }
    let count = |status: Status| findings.iter().filter(|finding| finding.status == status).count();
    let (failed, warnings) = (count(Status::Failed), count(Status::Warning));
    let result = match exit {
        Exit::Done if warnings == 0 => "everything is ready".to_owned(),
        Exit::Done if warnings == 1 => "ready, with 1 warning".to_owned(),
        Exit::Done => format!("ready, with {warnings} warnings"),
        _ => format!("problems: {failed}, warnings: {warnings}"),
    };
    println!("\n{result}");
}

/// For a script: one object.
pub(crate) fn json(findings: &[Finding], exit: Exit) {
    let is_ready = exit == Exit::Done;
    let document = serde_json::json!({ "ready": is_ready, "exit_code": exit.number(), "findings": findings });
    println!("{document:#}");
}
