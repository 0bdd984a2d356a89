//! Memory that the process's allocator keeps after it was freed.

/// An allocation of so many bytes goes back to the system when it is freed.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD_BYTES: i32 = 256 << 10;
/// Free memory that may stay at the end of each of glibc's arenas, about one a thread. Less costs page faults:
/// batches come and go all the time.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD_BYTES: i32 = 4 << 20;
/// Whoever sets one of these knows better.
#[cfg(target_env = "gnu")]
const VARIABLES: [&str; 3] = [
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "GLIBC_TUNABLES",
];

/// Keeps glibc's `malloc` from holding back more with each large block that is freed, once a process.
///
/// Left alone, it raises its thresholds to the largest block that it saw (32 MiB at most) and keeps twice as much in
/// each arena: memory beyond any bound. It changes nothing where another allocator is in use, or where one of
/// `MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_` and `GLIBC_TUNABLES` is set.
pub fn bound_allocator() {
    #[cfg(target_env = "gnu")]
    {
        use super::libc_calls::{MallocParameter, set_malloc_parameter};
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            if is_left_alone() {
                return;
            }
            set_malloc_parameter(MallocParameter::MmapThreshold, MMAP_THRESHOLD_BYTES);
            set_malloc_parameter(MallocParameter::TrimThreshold, TRIM_THRESHOLD_BYTES);
        });
    }
}

/// Gives pages that hold nothing any more back to the system, where glibc's `malloc` is in use. Values that come and
/// go leave as many free pages as they take: `malloc` keeps them for allocations that may never come.
/// It takes about a millisecond for each 10 MiB in use.
pub(crate) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    if !is_left_alone() {
        super::libc_calls::trim_malloc();
    }
}

#[cfg(target_env = "gnu")]
fn is_left_alone() -> bool {
    static IS_SET: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *IS_SET.get_or_init(|| VARIABLES.iter().any(|it| std::env::var_os(it).is_some()))
}
