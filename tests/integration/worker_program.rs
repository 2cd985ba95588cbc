//! Which program runs as a probe worker: the separate one, or the main program if the separate one cannot be used.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use targetwatch::sys::{ChildCensus, Lane, Request, Response, WorkerPool, WorkerPoolSettings};

const MAIN: &str = env!("CARGO_BIN_EXE_targetwatch");
const SEPARATE: &str = env!("CARGO_BIN_EXE_targetwatch-probe-worker");
const ENOUGH: Duration = Duration::from_secs(10);

/// Installs a copy of the main program in `bin/` of a directory, and returns its path.
fn install_main(directory: &TempDir) -> PathBuf {
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(MAIN, bin.join("targetwatch")).unwrap();
    bin.join("targetwatch")
}

async fn choose(main_program: &Path) -> (WorkerPoolSettings, ChildCensus) {
    let census = ChildCensus::new();
    (WorkerPoolSettings::choose(main_program.to_owned(), &census).await, census)
}

/// Starts a worker, lets it measure a file system, and returns the path of its program.
async fn program_of_worker(settings: WorkerPoolSettings, census: ChildCensus) -> PathBuf {
    let program = settings.program.clone();
    let pool = WorkerPool::new(settings, census);
    let request = Request::StatVfs { path: "/".into(), expect_nfs: false };
    let answer = pool.call(Uuid::new_v4(), Lane::Healthy, request, ENOUGH).await.expect("an answer");
    assert!(matches!(answer, Response::Counts(_)), "{answer:?}");
    let worker = child(&program);
    assert_eq!(fs::read_to_string(worker.join("comm")).expect("a worker"), "probe-worker\n");
    let file = fs::read_link(worker.join("exe")).expect("a worker");
    pool.shut_down();
    file
}

/// Directory in /proc of the child of this process that was started as `program`.
fn child(program: &Path) -> PathBuf {
    let command = [program.as_os_str().as_bytes(), b"\0probe-worker\0"].concat();
    let parent = format!("\nPPid:\t{}\n", std::process::id());
    let is_it = |process: &PathBuf| {
        fs::read(process.join("cmdline")).is_ok_and(|line| line == command)
            && fs::read_to_string(process.join("status")).is_ok_and(|status| status.contains(&parent))
    };
    fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).find(is_it).expect("a worker")
}

#[tokio::test]
async fn worker_is_the_separate_program_beside_the_main_program() {
    let (settings, census) = choose(Path::new(MAIN)).await;
    assert_eq!(program_of_worker(settings, census).await, fs::canonicalize(SEPARATE).unwrap());
}

#[tokio::test]
async fn worker_is_the_separate_program_of_the_package() {
    let directory = TempDir::new().unwrap();
    let main = install_main(&directory);
    let packaged = directory.path().join("libexec/targetwatch/targetwatch-probe-worker");
    fs::create_dir_all(packaged.parent().unwrap()).unwrap();
    fs::copy(SEPARATE, &packaged).unwrap();
    let (settings, census) = choose(&main).await;
    assert_eq!(program_of_worker(settings, census).await, fs::canonicalize(&packaged).unwrap());
}

#[tokio::test]
async fn workers_stay_those_of_the_build_when_an_upgrade_replaces_the_program() {
    let directory = TempDir::new().unwrap();
    let main = install_main(&directory);
    let separate = main.with_file_name("targetwatch-probe-worker");
    fs::copy(SEPARATE, &separate).unwrap();
    let (settings, census) = choose(&main).await;
    let upgrade = directory.path().join("upgrade");
    fs::copy("/bin/true", &upgrade).unwrap();
    fs::rename(&upgrade, &separate).unwrap();
    let program = program_of_worker(settings, census).await;
    assert!(program.to_string_lossy().ends_with("targetwatch-probe-worker (deleted)"), "{program:?}");
}

#[tokio::test]
async fn worker_is_the_main_program_when_the_separate_one_cannot_be_used() {
    let separate_programs: [(&str, Option<&[u8]>, u32); 4] = [
        ("not installed", None, 0),
        ("another program", Some(&fs::read("/bin/true").unwrap()), 0o755),
        ("not a program", Some(b"targetwatch"), 0o755),
        ("not executable", Some(&fs::read(SEPARATE).unwrap()), 0o644),
    ];
    for (what, program, mode) in separate_programs {
        let directory = TempDir::new().unwrap();
        let main = install_main(&directory);
        if let Some(program) = program {
            let separate = main.with_file_name("targetwatch-probe-worker");
            fs::write(&separate, program).unwrap();
            fs::set_permissions(&separate, fs::Permissions::from_mode(mode)).unwrap();
        }
        let (settings, census) = choose(&main).await;
        assert_eq!(program_of_worker(settings, census).await, fs::canonicalize(&main).unwrap(), "{what}");
    }
}
