//! The files of a savepoint: the copy that was made while the job stood still is moved to its place, and sealed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::channel::oneshot;

use super::{MANIFEST, Manifest, READ_BYTES, SavedFile, Savepoint, asking, describe_file, refused};
use crate::broker::sealed;
use crate::env::{Env, Files, OpenMode};
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
        let above = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        match above {
            Some(above) if !exists(above)? => {
                let why = format!("there is no directory {}: make it first", above.display());
                Err(refused(&self.path, why))
            }
            _ => Ok(()),
        }
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

/// Moves a copy of the state to its place, and seals it: it is a savepoint from then on. The job runs meanwhile.
pub(in crate::runtime::life) fn finish(
    env: &Env,
    copy: &Path,
    path: &Path,
    mut manifest: Manifest,
    held: Duration,
) -> Result<Savepoint, JobError> {
    let written = write(&*env.files, copy, path, &mut manifest);
    if let Err(e) = written {
        // What is half there is no savepoint; it is removed as far as that can be done.
        let _ = remove_tree(&*env.files, path);
        let _ = remove_tree(&*env.files, copy);
        let why = format!("{e}; the job goes on, and nothing is left there");
        return Err(refused(path, why));
    }
    Ok(Savepoint {
        path: path.to_owned(),
        manifest,
        held,
    })
}

fn write(
    files: &dyn Files,
    copy: &Path,
    path: &Path,
    manifest: &mut Manifest,
) -> Result<(), Box<dyn std::error::Error>> {
    files.create_dir(path)?;
    for entry in files.read_dir(copy)? {
        move_to(
            files,
            &copy.join(&entry.name),
            &path.join(&entry.name),
            entry.is_dir,
        )?;
    }
    remove_tree(files, copy)?;
    let mut found = Vec::new();
    describe(files, path, "", &mut found)?;
    manifest.files = found;
    // The files are durable before what says that they are there.
    sealed::write(files, &path.join(MANIFEST), manifest)?;
    if let Some(above) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        files.sync_dir(above)?;
    }
    Ok(())
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
    found: &mut Vec<SavedFile>,
) -> io::Result<()> {
    let folder = root.join(below);
    for entry in files.read_dir(&folder)? {
        let path = match below {
            "" => entry.name,
            below => format!("{below}/{}", entry.name),
        };
        if entry.is_dir {
            describe(files, root, &path, found)?;
            continue;
        }
        files.open(&root.join(&path), OpenMode::Read)?.sync_data()?;
        found.push(describe_file(files, root, &path)?);
    }
    files.sync_dir(&folder)
}

/// Removes a directory and what is below it, if it is there.
fn remove_tree(files: &dyn Files, path: &Path) -> io::Result<()> {
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
