//! Which edges of the code under test were reached, if it was compiled to count them (`counted.sh`); otherwise there are none.
#![expect(unsafe_code, reason = "the compiler hands its counters over as two pointers")]

use std::fmt;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Counters looked at together: most inputs reach few edges.
const AT_ONCE: usize = 256;

/// One byte an edge, then address and flags of each; begin and end of either section.
static COUNTERS: [AtomicPtr<u8>; 2] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];
static PLACES: [AtomicPtr<[usize; 2]>; 2] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];

fn note<T>(section: &[AtomicPtr<T>; 2], bounds: [*mut T; 2]) {
    for (bound, pointer) in section.iter().zip(bounds) {
        bound.store(pointer, Ordering::Relaxed);
    }
}

/// Called before `main` by every object that counts; all of them name the whole section.
// SAFETY: the name belongs to LLVM's SanitizerCoverage, which gives the function this type; nobody else defines it here.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(begin: *mut u8, end: *mut u8) {
    note(&COUNTERS, [begin, end]);
}

/// As above.
// SAFETY: as above; LLVM stores two words an edge.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_pcs_init(begin: *mut [usize; 2], end: *mut [usize; 2]) {
    note(&PLACES, [begin, end]);
}

/// As many as fit between the bounds; none without.
fn section<T>(bounds: &[AtomicPtr<T>; 2]) -> (*mut T, usize) {
    let [begin, end] = bounds.each_ref().map(|bound| bound.load(Ordering::Relaxed));
    (begin, (end.addr() - begin.addr()) / size_of::<T>())
}

/// Looks at every counter and clears it. No code that counts may run meanwhile.
fn each_counter(mut see: impl FnMut(usize)) {
    let (begin, len) = section(&COUNTERS);
    if len == 0 {
        return;
    }
    // SAFETY: the linker made the section, writable and as long as its bounds say, for as long as the process runs. Only
    // the code under test writes to it, on this thread, and it does not run here.
    let counters = unsafe { std::slice::from_raw_parts_mut(begin, len) };
    for (number, many) in counters.chunks_mut(AT_ONCE).enumerate() {
        if many.iter().fold(0, |any, counter| any | counter) == 0 {
            continue;
        }
        for (place, counter) in many.iter_mut().enumerate().filter(|(_, counter)| **counter != 0) {
            *counter = 0;
            see(number * AT_ONCE + place);
        }
    }
}

/// The edges reached so far.
pub(crate) struct Coverage {
    reached: Vec<bool>,
    count: usize,
}

impl Coverage {
    /// Nothing is reached.
    pub(crate) fn new() -> Self {
        each_counter(|_| {});
        Self { reached: vec![false; section(&COUNTERS).1], count: 0 }
    }

    /// How many edges were reached since the last call that never were before.
    pub(crate) fn take(&mut self) -> usize {
        let before = self.count;
        each_counter(|edge| {
            self.count += usize::from(!self.reached[edge]);
            self.reached[edge] = true;
        });
        self.count - before
    }

    /// One line an edge for `coverage.py`: its address in the executable, 1 if a function begins there, 1 if reached.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> io::Result<()> {
        let (begin, len) = section(&PLACES);
        if len == 0 {
            return Ok(());
        }
        // SAFETY: as for the counters, but nobody writes.
        let places = unsafe { std::slice::from_raw_parts(begin, len) };
        let loaded = loaded_at()?;
        std::fs::create_dir_all(directory)?;
        let mut file = BufWriter::new(std::fs::File::create(directory.join(name))?);
        for ([address, flags], reached) in places.iter().zip(&self.reached) {
            writeln!(file, "{:#x} {} {}", address.wrapping_sub(loaded), flags & 1, u8::from(*reached))?;
        }
        file.flush()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reached.is_empty() {
            return f.write_str("no edges counted");
        }
        write!(f, "{} of {} edges", self.count, self.reached.len())
    }
}

/// Where the executable lies in memory.
fn loaded_at() -> io::Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let own = std::env::current_exe()?;
    let first = maps.lines().find(|line| line.ends_with(&*own.to_string_lossy()));
    let address = first.and_then(|line| usize::from_str_radix(line.split_once('-')?.0, 16).ok());
    address.ok_or_else(|| io::Error::other("the executable is not among its own mappings"))
}
