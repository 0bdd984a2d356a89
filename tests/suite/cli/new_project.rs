//! `onceflow new`: what cannot be a project is refused.

use super::{Cli, finish, onceflow};

#[test]
fn what_cannot_be_a_project_is_refused_with_what_to_do() {
    let cli = Cli::new();
    let place = cli.directory.path();
    for (name, said) in [
        ("2nd", "--name"),
        ("tokio", "another crate"),
        ("My Job", "--name"),
    ] {
        let done = cli.run(&["new", place.join(name).to_str().unwrap()]);
        assert_eq!(done.code, 2, "{name}: {done:?}");
        assert!(done.err.contains(said), "{name}: {done:?}");
        assert!(!place.join(name).exists());
    }
    let path = place.join("there");
    std::fs::create_dir(&path).unwrap();
    let done = cli.run(&["new", path.to_str().unwrap()]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("is there already"), "{done:?}");
    let mut command = onceflow(&["new", "job-a", "--onceflow", "nowhere"]);
    command.current_dir(place);
    let done = finish(command, b"");
    assert!(done.err.contains("takes a checkout"), "{done:?}");
    assert!(!place.join("job-a").exists(), "nothing was made");
}
