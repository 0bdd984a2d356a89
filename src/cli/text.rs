//! Real text for the demo and the benchmarks: the files given, else what the repository and the system hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::output::MIB;
use crate::env::{Env, File, OpenMode};

/// The current directory is searched if it has this file: then it is a repository of source and documentation.
const REPOSITORY_MARK: &str = "Cargo.toml";
/// Where text is looked for when no files are given, after the repository's own.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/share/common-licenses", "/usr/share/doc"];
/// Directories that hold no text that somebody wrote for reading.
const SKIPPED_DIRECTORIES: [&str; 4] = ["target", "node_modules", ".git", ".ci"];
/// A larger file is left out: one file should not drown the others.
const FILE_BYTES_MAX: u64 = 4 * MIB;
/// Depth of the search in directories.
const DEPTH_MAX: u32 = 6;
/// More is not looked for.
const FOUND_BYTES_MAX: u64 = 64 * MIB;
/// Bytes of one read.
const CHUNK_BYTES: usize = 1 << 20;

/// Text found: the files, in the order in which they are read.
pub(super) struct Sources {
    /// The files.
    pub(super) files: Vec<PathBuf>,
    /// Their bytes together.
    pub(super) bytes: u64,
    /// When the search ends.
    wanted_bytes: u64,
}

impl Sources {
    /// The files given; without any, text of the repository and the system's documentation, until there are
    /// `wanted_bytes`.
    pub(super) fn find(env: &Env, given: &[PathBuf], wanted_bytes: u64) -> anyhow::Result<Self> {
        let mut sources = Self {
            files: Vec::new(),
            bytes: 0,
            wanted_bytes: wanted_bytes.min(FOUND_BYTES_MAX),
        };
        if given.is_empty() {
            // Any other directory could hold anything, a disk of logs for one.
            if env.files.exists(Path::new(REPOSITORY_MARK))? {
                sources.add_directory(env, Path::new("."), DEPTH_MAX);
            }
            for directory in SYSTEM_DIRECTORIES {
                sources.add_directory(env, Path::new(directory), DEPTH_MAX);
            }
        }
        for path in given {
            sources.add_given(env, path)?;
        }
        if sources.bytes == 0 {
            bail!("no text was found: name files to read, for example `onceflow demo FILE…`");
        }
        Ok(sources)
    }

    fn add_given(&mut self, env: &Env, path: &Path) -> anyhow::Result<()> {
        // A link that a user names is meant; `env` itself follows none.
        let real = path
            .canonicalize()
            .with_context(|| format!("cannot read {}: name a text file", path.display()))?;
        if real.is_dir() {
            bail!(
                "{} is a directory: name the files in it, for example {}/*.txt",
                path.display(),
                path.display()
            );
        }
        let file = env
            .files
            .open(&real, OpenMode::Read)
            .with_context(|| format!("cannot read {}", path.display()))?;
        self.bytes += file.length_bytes()?;
        self.files.push(real);
        Ok(())
    }

    /// Adds the text files below `directory`. What cannot be read is left out: any text will do.
    fn add_directory(&mut self, env: &Env, directory: &Path, depth: u32) {
        let Ok(entries) = env.files.read_dir(directory) else {
            return;
        };
        for entry in entries {
            if self.bytes >= self.wanted_bytes {
                return;
            }
            let path = directory.join(&entry.name);
            let is_skipped = SKIPPED_DIRECTORIES.contains(&entry.name.as_str());
            match entry.is_dir {
                true if depth > 0 && !is_skipped => self.add_directory(env, &path, depth - 1),
                false if is_text(env, &path, entry.length_bytes) => {
                    self.bytes += entry.length_bytes;
                    self.files.push(path);
                }
                _ => {}
            }
        }
    }
}

/// Whether a file looks like text: not empty, not large, its first bytes UTF-8 without NUL.
fn is_text(env: &Env, path: &Path, length_bytes: u64) -> bool {
    const HEAD_BYTES: usize = 1024;
    if length_bytes == 0 || length_bytes > FILE_BYTES_MAX {
        return false;
    }
    let mut head = [0; HEAD_BYTES];
    let read = env
        .files
        .open(path, OpenMode::Read)
        .and_then(|file| file.read_full_at(&mut head, 0));
    let Ok(read) = read else { return false };
    let head = &head[..read];
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        // A character may be cut at the end of what was read, nowhere else.
        Err(e) => e.error_len().is_none() && read == HEAD_BYTES,
    };
    is_utf8 && !head.contains(&0)
}

/// Text made ready to be processed.
pub(super) struct Prepared {
    /// The files made.
    pub(super) files: Vec<PathBuf>,
    /// Their bytes together.
    pub(super) bytes: u64,
    /// Repetitions of the sources.
    pub(super) repetitions: u64,
}

/// Writes the text of `sources`, cut at line ends, into `files_count` files in `directory`, each part again and
/// again until there are at least `target_bytes` in all; once at least. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn prepare(
    env: &Env,
    sources: &Sources,
    directory: &Path,
    files_count: usize,
    target_bytes: u64,
) -> anyhow::Result<Prepared> {
    let text = read_all(env, &sources.files)?;
    let repetitions = target_bytes.div_ceil(text.len() as u64).max(1);
    let mut prepared = Prepared {
        files: Vec::new(),
        bytes: 0,
        repetitions,
    };
    for (index, part) in split_lines(&text, files_count).into_iter().enumerate() {
        let path = directory.join(format!("text-{index}.txt"));
        let file = env.files.open(&path, OpenMode::CreateNew)?;
        prepared.bytes += repeat(&*file, part.as_bytes(), repetitions)
            .with_context(|| format!("cannot write {}: free some space", path.display()))?;
        prepared.files.push(path);
    }
    Ok(prepared)
}

fn read_all(env: &Env, files: &[PathBuf]) -> anyhow::Result<String> {
    let mut text = String::new();
    for path in files {
        let bytes = env
            .files
            .read(path, u64::MAX)
            .with_context(|| format!("cannot read {}", path.display()))?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        // The last line of one file must not run into the first of the next.
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// Cuts `text` at line ends into at most `parts_count` parts of about the same size.
fn split_lines(text: &str, parts_count: usize) -> Vec<&str> {
    let mut parts = Vec::with_capacity(parts_count);
    let mut rest = text;
    for left in (1..=parts_count).rev() {
        let middle = rest.len() / left;
        let end = match memchr::memchr(b'\n', &rest.as_bytes()[middle.saturating_sub(1)..]) {
            Some(at) if left > 1 => middle.saturating_sub(1) + at + 1,
            _ => rest.len(),
        };
        let (part, after) = rest.split_at(end);
        if !part.is_empty() {
            parts.push(part);
        }
        rest = after;
    }
    parts
}

fn repeat(file: &dyn File, part: &[u8], repetitions: u64) -> std::io::Result<u64> {
    let mut position = 0;
    for _ in 0..repetitions {
        file.write_all_at(part, position)?;
        position += part.len() as u64;
    }
    Ok(position)
}

/// Calls `each` with every line of a file, without its line end. Lines that are not UTF-8 are an error.
pub(super) fn for_each_line(
    env: &Env,
    path: &Path,
    mut each: impl FnMut(&str),
) -> anyhow::Result<()> {
    let file = env.files.open(path, OpenMode::Read)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut held, mut position) = (0, 0);
    loop {
        if held == buffer.len() {
            buffer.resize(2 * held, 0); // a line longer than the buffer
        }
        let read = file.read_full_at(&mut buffer[held..], position)?;
        position += read as u64;
        let filled = &buffer[..held + read];
        let is_end = read == 0;
        let whole = match memchr::memrchr(b'\n', filled) {
            _ if is_end => filled.len(),
            Some(at) => at + 1,
            None => 0,
        };
        let lines = std::str::from_utf8(&filled[..whole])
            .with_context(|| format!("{} is not UTF-8 text", path.display()))?;
        lines.lines().for_each(&mut each);
        if is_end {
            return Ok(());
        }
        let end = held + read;
        buffer.copy_within(whole..end, 0);
        held = end - whole;
    }
}

/// A directory for one run, removed with everything in it when dropped.
pub(super) struct TemporaryDirectory {
    env: Env,
    path: PathBuf,
}

impl TemporaryDirectory {
    /// Makes a new one below `parent`, or below the system's directory for temporary files.
    pub(super) fn create(env: &Env, parent: Option<&Path>) -> anyhow::Result<Self> {
        let is_named = parent.is_some();
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = parent.join(format!("onceflow-{:016x}", env.random.next_u64()));
        env.files.create_dir(&path).with_context(|| {
            let advice = match is_named {
                true => "name another place with --dir",
                false => "set TMPDIR to a writable one",
            };
            format!(
                "cannot make the temporary directory {}: {advice}",
                path.display()
            )
        })?;
        Ok(Self {
            env: env.clone(),
            path,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory called `name` in it.
    pub(super) fn subdirectory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        self.env.files.create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        remove_tree(&self.env, &self.path);
    }
}

/// Removes a directory and what is in it, as far as it can. Links are removed, never followed.
pub(super) fn remove_tree(env: &Env, directory: &Path) {
    let entries: BTreeSet<_> = env
        .files
        .read_dir(directory)
        .unwrap_or_default()
        .into_iter()
        .collect();
    for entry in entries {
        let path = directory.join(&entry.name);
        match entry.is_dir {
            true => remove_tree(env, &path),
            false => drop(env.files.remove_file(&path)),
        }
    }
    drop(env.files.remove_dir(directory));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (Env, TemporaryDirectory) {
        let env = Env::real();
        let directory = TemporaryDirectory::create(&env, None).unwrap();
        (env, directory)
    }

    fn write(env: &Env, path: &Path, bytes: &[u8]) {
        let file = env.files.open(path, OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    #[test]
    fn only_text_is_found_and_in_order() {
        let (env, directory) = directory();
        let inner = directory.subdirectory("b").unwrap();
        write(&env, &directory.path().join("a.txt"), b"tea\n");
        write(&env, &directory.path().join("x.gz"), b"\x1f\x8b\x08\0");
        write(&env, &directory.path().join("empty"), b"");
        write(&env, &inner.join("c"), "Käse\n".as_bytes());
        let mut sources = Sources {
            files: Vec::new(),
            bytes: 0,
            wanted_bytes: u64::MAX,
        };
        sources.add_directory(&env, directory.path(), DEPTH_MAX);
        assert_eq!(
            sources.files,
            [directory.path().join("a.txt"), inner.join("c")]
        );
        assert_eq!(sources.bytes, 4 + 6);
    }

    #[test]
    fn a_missing_file_and_a_directory_are_refused_with_what_to_do() {
        let (env, directory) = directory();
        let message = |path: PathBuf| {
            let error = Sources::find(&env, &[path], 0).err().unwrap();
            format!("{error:#}")
        };
        assert!(message(directory.path().join("none")).contains("name a text file"));
        assert!(message(directory.path().to_path_buf()).contains("name the files in it"));
    }

    #[test]
    fn prepared_text_is_repeated_and_cut_at_line_ends() {
        let (env, directory) = directory();
        let source = directory.path().join("a.txt");
        write(&env, &source, b"one two\nthree\n\xff\nlast");
        let sources = Sources::find(&env, &[source], 0).unwrap();
        let prepared = prepare(&env, &sources, directory.path(), 2, 50).unwrap();
        assert_eq!((prepared.files.len(), prepared.repetitions), (2, 3));
        let mut lines = Vec::new();
        for path in &prepared.files {
            for_each_line(&env, path, |line| lines.push(line.to_owned())).unwrap();
        }
        lines.sort();
        let mut expected = ["one two", "three", "\u{fffd}", "last"].repeat(3);
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }

    #[test]
    fn lines_longer_than_the_buffer_come_whole() {
        let (env, directory) = directory();
        let path = directory.path().join("long");
        let long = "x".repeat(3 * CHUNK_BYTES);
        write(&env, &path, format!("a\n{long}\n\nb").as_bytes());
        let mut lengths = Vec::new();
        for_each_line(&env, &path, |line| lengths.push(line.len())).unwrap();
        assert_eq!(lengths, [1, long.len(), 0, 1]);
    }

    #[test]
    fn a_temporary_directory_leaves_nothing_behind() {
        let (env, directory) = directory();
        let path = directory.path().to_path_buf();
        let inner = directory.subdirectory("a").unwrap();
        write(&env, &inner.join("b"), b"c");
        drop(directory);
        assert!(!env.files.exists(&path).unwrap());
    }
}
