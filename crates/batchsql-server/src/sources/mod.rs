//! Where the rows of `run` come from, besides HTTP: each kind of source is a module with one function, and `start` runs it until
//! the service ends.

mod files;
mod stdin;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::settings::{Source, SourceKind};
use crate::exit::Exit;
use crate::intake::Intake;
use crate::table::target::Target;

/// Starts the sources. A task ends when its source has no more rows, or cannot be read any more; files may always come.
pub(crate) fn start(sources: &[Source], intake: &Intake, tables: &BTreeMap<String, Arc<Target>>) -> JoinSet<Exit> {
    let mut tasks = JoinSet::new();
    for source in sources {
        let target = Arc::clone(&tables[&source.table]);
        let (id, intake) = (source.id.clone(), intake.clone());
        match &source.kind {
            SourceKind::Stdin => tasks.spawn(async move { stdin::run(&id, &intake, &target).await }),
            SourceKind::Files(files) => {
                let files = files.clone();
                tasks.spawn(async move { files::run(&id, &files, &intake, &target).await })
            }
        };
    }
    tasks
}
