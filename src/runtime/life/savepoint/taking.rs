//! The files of a savepoint: the copy that was made while the job stood still is moved to its place, and sealed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::channel::oneshot;

use super::sums::Sums;
use super::{
    MANIFEST, Manifest, READ_BYTES, SavedFile, Savepoint, asking, folder_of, is_named, refused,
    unfinished,
};
use crate::broker::sealed;
use crate::env::{Env, Files, OpenMode, failpoint};
use crate::runtime::contract::error::JobError;

/// A wish for a savepoint.
pub(in crate::runtime::life) struct Request {
    pub(in crate::runtime::life) path: PathBuf,
    answer: Answer,
}

/// The place of the answer.
enum Answer {
    Caller(oneshot::Sender<Result<Savepoint, JobError>>),
    /// Of somebody in another process.
    File(Env, PathBuf),
}

impl Request {
    pub(in crate::runtime::life) fn new(
        path: &Path,
    ) -> (Self, oneshot::Receiver<Result<Savepoint, JobError>>) {
        let (answer, answered) = oneshot::channel();
        let path = path.to_owned();
        let answer = Answer::Caller(answer);
        (Self { path, answer }, answered)
    }

    /// Of somebody in another process, who looks for the answer in a file.
    pub(in crate::runtime::life) fn answered_by_file(
        path: PathBuf,
        env: Env,
        file: PathBuf,
    ) -> Self {
        let answer = Answer::File(env, file);
        Self { path, answer }
    }

    /// Refuses what could only fail later, while the job stands still.
    pub(in crate::runtime::life) fn check(&self, env: &Env) -> Result<(), JobError> {
        let exists = |path: &Path| env.files.exists(path).map_err(|e| refused(&self.path, e));
        if exists(&self.path)? {
            let why = "the path exists: nothing there is touched, choose another one";
            return Err(refused(&self.path, why));
        }
        if !is_named(&self.path) {
            let why = "a savepoint needs a name that does not end in `.unfinished`";
            return Err(refused(&self.path, why));
        }
        let above = folder_of(&self.path);
        if !exists(above)? {
            let why = format!("there is no directory {}: make it first", above.display());
            return Err(refused(&self.path, why));
        }
        Ok(())
    }

    pub(in crate::runtime::life) fn answer(self, result: Result<Savepoint, JobError>) {
        match self.answer {
            // Whoever asked may be gone.
            Answer::Caller(caller) => drop(caller.send(result)),
            Answer::File(env, file) => asking::answer(&env, &file, &self.path, &result),
        }
    }

    pub(in crate::runtime::life) fn refuse(self, why: &str) {
        let error = refused(&self.path, why);
        self.answer(Err(error));
    }
}

/// Moves a copy of the state beside its place, seals it there, and gives it its name: it is a savepoint from then on, and whole.
/// The job runs meanwhile.
pub(in crate::runtime::life) fn finish(
    env: &Env,
    copy: &Path,
    path: &Path,
    mut manifest: Manifest,
    held: Duration,
) -> Result<Savepoint, JobError> {
    let (files, making) = (&*env.files, unfinished(path));
    let written = clear(files, &making).and_then(|()| {
        let written = write(files, copy, &making, path, &mut manifest);
        if written.is_err() {
            // It has no name yet; it is removed as far as that can be done.
            let _ = remove_tree(files, &making);
        }
        written
    });
    if let Err(e) = written {
        let _ = remove_tree(files, copy);
        let why = format!("{e}; the job goes on, and there is no savepoint at this path");
        return Err(refused(path, why));
    }
    Ok(Savepoint {
        path: path.to_owned(),
        manifest,
        held,
    })
}

/// Removes the rest of a savepoint that was being made when its process died.
fn clear(files: &dyn Files, making: &Path) -> Result<(), Failure> {
    if !files.exists(making)? {
        return Ok(());
    }
    let entries = files.read_dir(making)?;
    match entries.iter().find(|it| !is_ours(&it.name)) {
        Some(other) => Err(format!(
            "{} is there and has {:?} in it, which is of no savepoint: move it away, or choose another path",
            making.display(),
            other.name
        )
        .into()),
        None => Ok(remove_tree(files, making)?),
    }
}

fn is_ours(name: &str) -> bool {
    let manifest = name.strip_suffix(".tmp").unwrap_or(name);
    ["meta.json", "rocksdb", super::between::FOLDER].contains(&name) || manifest == MANIFEST
}

type Failure = Box<dyn std::error::Error>;

fn write(
    files: &dyn Files,
    copy: &Path,
    making: &Path,
    path: &Path,
    manifest: &mut Manifest,
) -> Result<(), Failure> {
    files.create_dir(making)?;
    for entry in files.read_dir(copy)? {
        move_to(
            files,
            &copy.join(&entry.name),
            &making.join(&entry.name),
            entry.is_dir,
        )?;
    }
    remove_tree(files, copy)?;
    failpoint("savepoint.moved");
    let mut found = Vec::new();
    let state = folder_of(copy);
    let mut sums = Sums::read(files, state);
    describe(files, making, "", &mut sums, &mut found)?;
    manifest.files = found;
    // Without them the next savepoint takes longer.
    let _ = sums.write(files, state);
    failpoint("savepoint.summed");
    // The files are durable before what says that they are there, and that before the name.
    sealed::write(files, &making.join(MANIFEST), manifest)?;
    failpoint("savepoint.sealed");
    if files.exists(path)? {
        return Err("the path exists by now: nothing there is touched, choose another one".into());
    }
    files.rename(making, path)?;
    failpoint("savepoint.named");
    let synced = files.sync_dir(folder_of(path));
    if synced.is_err() {
        // Nobody knows whether it keeps its name: nobody is to count on it.
        let _ = remove_tree(files, path);
    }
    Ok(synced?)
}

/// Renames, or copies where the other place is on another file system.
fn move_to(files: &dyn Files, from: &Path, to: &Path, is_dir: bool) -> io::Result<()> {
    match files.rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        renamed => return renamed,
    }
    if !is_dir {
        return copy_file(files, from, to);
    }
    files.create_dir(to)?;
    for entry in files.read_dir(from)? {
        copy_file(files, &from.join(&entry.name), &to.join(&entry.name))?;
    }
    Ok(())
}

fn copy_file(files: &dyn Files, from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (
        files.open(from, OpenMode::Read)?,
        files.open(to, OpenMode::CreateNew)?,
    );
    let (mut buffer, mut at) = (vec![0; READ_BYTES], 0);
    loop {
        let read = from.read_full_at(&mut buffer, at)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
}

/// Lists the files below `folder` with their checksums, and makes them durable.
fn describe(
    files: &dyn Files,
    root: &Path,
    below: &str,
    sums: &mut Sums,
    found: &mut Vec<SavedFile>,
) -> io::Result<()> {
    let folder = root.join(below);
    for entry in files.read_dir(&folder)? {
        let path = match below {
            "" => entry.name,
            below => format!("{below}/{}", entry.name),
        };
        if entry.is_dir {
            describe(files, root, &path, sums, found)?;
            continue;
        }
        files.open(&root.join(&path), OpenMode::Read)?.sync_data()?;
        found.push(sums.describe(files, root, &path)?);
    }
    files.sync_dir(&folder)
}

/// Removes a directory and what is below it, if it is there.
pub(super) fn remove_tree(files: &dyn Files, path: &Path) -> io::Result<()> {
    if !files.exists(path)? {
        return Ok(());
    }
    for entry in files.read_dir(path)? {
        let below = path.join(&entry.name);
        match entry.is_dir {
            true => remove_tree(files, &below)?,
            false => files.remove_file(&below)?,
        }
    }
    files.remove_dir(path)
}
