//! `scripts/setup` finds what the build finds, on directories made up for it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Beginnings of a shared library for 64 bits, and one for 32.
const ELF_64: &[u8] = b"\x7fELF\x02\x01\x01";
const ELF_32: &[u8] = b"\x7fELF\x01\x01\x01";
/// The programs that the script calls; all others are out of its reach, clang and llvm-config above all.
const PROGRAMS: [&str; 10] = [
    "bash", "cut", "dirname", "grep", "head", "od", "readlink", "sed", "sort", "tr",
];

/// The root of a file system that has just what a test puts there.
struct Root {
    directory: TempDir,
}

impl Root {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let root = Self { directory };
        std::fs::create_dir(root.path("bin")).unwrap();
        for program in PROGRAMS {
            let folders = ["/usr/bin", "/bin"].map(|it| Path::new(it).join(program));
            let place = folders.iter().find(|it| it.exists());
            let place = place.unwrap_or_else(|| panic!("{program} is needed for this test"));
            symlink(place, root.path("bin").join(program)).unwrap();
        }
        root
    }

    fn path(&self, place: &str) -> PathBuf {
        self.directory.path().join(place)
    }

    fn file(&self, place: &str, bytes: &[u8]) {
        let path = self.path(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The output of a line of shell once it has the script's functions; `$root` is this root.
    fn shell(&self, line: &str, variables: &[(&str, &str)]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup");
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("source '{}'; {line}", script.display())])
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.directory.path())
            .env("root", self.directory.path());
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}`: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The libraries that are found, from the root on.
    fn found(&self, variables: &[(&str, &str)]) -> Vec<String> {
        let found = self.shell("find_libclang \"$root\"", variables);
        let root = format!("{}/", self.directory.path().display());
        let mut found: Vec<_> = found.lines().map(|it| it.replacen(&root, "", 1)).collect();
        found.sort();
        found.dedup();
        found
    }

    /// A program of the root's own that prints `text`.
    fn program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let place = format!("bin/{name}");
        self.file(&place, format!("#!/bin/sh\necho '{text}'\n").as_bytes());
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(&place), all).unwrap();
    }

    fn has_headers(&self, library: &str) -> bool {
        let line = format!("has_headers \"$root\" \"$root/{library}\" && echo yes || echo no");
        self.shell(&line, &[]) == "yes\n"
    }
}

#[test]
fn x17_libclang_cpp_is_not_taken_for_libclang() {
    let root = Root::new();
    for place in [
        "usr/lib/llvm-14/lib/libclang-cpp.so.14",
        "usr/lib/x86_64-linux-gnu/libclang-cpp.so.14.0",
        "usr/lib/llvm-14/lib/libclangAST.so",
        "usr/lib/llvm-14/lib/libLLVM-14.so",
    ] {
        root.file(place, ELF_64);
    }
    root.program("llvm-config", "/usr/lib/llvm-14");
    assert!(root.found(&[]).is_empty(), "{:?}", root.found(&[]));
}

#[test]
fn x17_libclang_is_found_by_each_of_its_names_and_places() {
    for place in [
        "usr/lib/llvm-14/lib/libclang.so",
        "usr/lib/llvm-14/lib/libclang-14.so",
        "usr/lib/x86_64-linux-gnu/libclang-14.so.1",
        "usr/lib64/libclang.so.18.1",
        "usr/lib/libclang.so.13",
        "usr/local/lib/libclang.so",
        "usr/local/llvm18/lib/libclang.so",
    ] {
        let root = Root::new();
        root.file(place, ELF_64);
        assert_eq!(root.found(&[]), [place]);
    }
    let root = Root::new();
    root.file("usr/lib/llvm-14/lib/a/libclang.so", ELF_64);
    root.file("opt/llvm/lib/libclang.so", ELF_64);
    assert!(root.found(&[]).is_empty(), "the build does not look there");
    root.program("llvm-config", "/opt/llvm");
    assert_eq!(root.found(&[]), ["opt/llvm/lib/libclang.so"]);
}

#[test]
fn x17_a_library_of_another_processor_and_a_link_to_nowhere_do_not_count() {
    let root = Root::new();
    root.file("usr/lib/libclang.so", ELF_32);
    root.file("usr/lib/libclang-3.so", b"not a library");
    root.file("usr/lib/libclang-4.so", b"");
    symlink("gone", root.path("usr/lib/libclang.so.1")).unwrap();
    assert!(root.found(&[]).is_empty(), "{:?}", root.found(&[]));
    root.file("usr/lib/real.so", ELF_64);
    symlink("real.so", root.path("usr/lib/libclang.so.2")).unwrap();
    assert_eq!(root.found(&[]), ["usr/lib/libclang.so.2"]);
}

#[test]
fn x17_libclang_path_is_a_directory_or_a_file_and_the_only_place() {
    let root = Root::new();
    root.file("usr/lib/libclang.so", ELF_64);
    root.file("own/lib/libclang.so", ELF_64);
    root.file("own/lib/libclang-cpp.so.14", ELF_64);
    let found = |place: &str| {
        let path = root.path(place);
        root.found(&[("LIBCLANG_PATH", path.to_str().unwrap())])
    };
    assert_eq!(found("own/lib"), ["own/lib/libclang.so"]);
    assert_eq!(found("own/lib/libclang.so"), ["own/lib/libclang.so"]);
    assert!(found("own/lib/libclang-cpp.so.14").is_empty());
    assert!(found("nowhere").is_empty());
    let path = root.path("own/lib");
    let found = root.found(&[("LD_LIBRARY_PATH", path.to_str().unwrap())]);
    assert_eq!(found, ["own/lib/libclang.so", "usr/lib/libclang.so"]);
}

#[test]
fn x17_the_newest_library_is_the_one_that_must_have_headers() {
    let root = Root::new();
    root.file("usr/lib/llvm-14/lib/libclang-14.so.1", ELF_64);
    root.file("usr/lib/x86_64-linux-gnu/libclang-16.so.16.0.6", ELF_64);
    root.file("usr/lib/libclang.so", ELF_64);
    let line = "mapfile -t found < <(find_libclang \"$root\"); newest \"${found[@]}\"";
    let newest = root.shell(line, &[]);
    assert!(newest.ends_with("libclang-16.so.16.0.6\n"), "{newest}");
    root.file("usr/lib/llvm-14/lib/clang/14.0.6/include/stddef.h", b"");
    assert!(root.has_headers("usr/lib/llvm-14/lib/libclang-14.so.1"));
    assert!(!root.has_headers("usr/lib/x86_64-linux-gnu/libclang-16.so.16.0.6"));
    root.file("usr/lib/llvm-16/lib/clang/16/include/stddef.h", b"");
    assert!(root.has_headers("usr/lib/x86_64-linux-gnu/libclang-16.so.16.0.6"));
}

#[test]
fn x17_the_long_build_is_announced_until_it_is_done() {
    let root = Root::new();
    let target = root.path("target");
    let said = |profile: &str| {
        let line = format!("announce_build {profile} 2>&1");
        root.shell(&line, &[("CARGO_TARGET_DIR", target.to_str().unwrap())])
    };
    assert!(said("debug").contains("ten minutes"), "{}", said("debug"));
    let version = root.shell(
        "sed -n '/^name = \"librocksdb-sys\"/{n;s/.*\"\\(.*\\)\"/\\1/p}' \"$repository/Cargo.lock\"",
        &[],
    );
    let output = "target/debug/build/librocksdb-sys-0123/output";
    root.file(output, b"cargo:out_dir=/librocksdb-sys-0.1.0");
    assert_ne!(said("debug"), "", "of another version");
    let built = format!("cargo:cargo_manifest_dir=/librocksdb-sys-{version}");
    root.file(output, built.as_bytes());
    assert_eq!(said("debug"), "");
    assert_ne!(said("release"), "", "of the other profile");
}
