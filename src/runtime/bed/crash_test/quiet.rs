//! Panics that a crash test expects: kept for its message instead of being printed at once.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The hook stays for the process's life, and passes on what other threads panic with.
static HOOK: Once = Once::new();

/// Does `work`; a panic of it comes back as its message with its place.
pub(super) fn catch<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| match IS_QUIET.get() {
            true => LAST.set(Some(panic.to_string())),
            false => print(panic),
        }));
    });
    let was_quiet = IS_QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(was_quiet);
    done.map_err(|_| {
        let last = LAST.take();
        last.unwrap_or_else(|| "a panic without a message".to_owned())
    })
}
