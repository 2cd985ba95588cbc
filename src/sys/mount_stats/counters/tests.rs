use super::*;

/// As Linux 6.1 writes it, shortened: NFS 3 and 4.2, a name with a space, a mount without a device.
const STATS: &[u8] = b"\
device proc mounted on /proc with fstype proc
no device mounted on /nothing with fstype tmpfs
device nas:/b mounted on /m/L2I= with fstype nfs statvers=1.1
\topts:\trw,vers=3,rsize=131072,wsize=131072,namlen=255,soft,nolock,proto=tcp,timeo=600,retrans=10,sec=sys
\tage:\t75
\tcaps:\tcaps=0xf,wtmult=4096,dtsize=131072,bsize=0,namlen=255
\tsec:\tflavor=1,pseudoflavor=1
\tevents:\t4 12 0 0 2 3 8 3 0 0 0 3 0 0 5 2 0 2 0 0 3 0 0 0 0 0 0 
\tbytes:\t4096 5000001 0 0 4097 5000002 0 1221 
\tRPC iostats version: 1.1  p/v: 100003/3 (nfs)
\txprt:\ttcp 0 0 2 0 0 31 31 0 31 0 3 0 0
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 1 1 0
\t     GETATTR: 10 12 1 1320 1120 0 7 9 0
\t       WRITE: 40 41 0 5005000 5440 3 52 60 0

device nas:/a\\040b mounted on /m/with\\040space with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2
\tage:\t5
\tbytes:\t0 0 0 0 7 8 0 0 
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0

device nas:/twice mounted on /m/twice with fstype nfs statvers=1.1
\tage:\t5
\tbytes:\t0 0 0 0 7 8 0 0 
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0

device nas:/twice mounted on /m/twice with fstype nfs statvers=1.1
\tage:\t6
\tbytes:\t0 0 0 0 7 8 0 0 
\tper-op statistics
\t        NULL: 2 2 0 44 24 0 0 0

device nas:/half mounted on /m/half with fstype nfs statvers=1.1
\tage:\t5
\tbytes:\t0 0 what 0 7 8 0 0 
\tper-op statistics
\t        NULL: 2 2 0 44 24 0 0 0
device \xff mounted on /m/\xff with fstype ext4
device nas:/last mounted on /m/last with fstype nfs statvers=9
\tage:\t5
\tbytes:\t0 0 0 0 7 8
\tper-op statistics
\t     UNKNOWN: 2 3 0 44 24 0 4 5 6 7 8";

#[test]
fn mount_counters_are_parsed() {
    let stats = MountStats::parse(STATS);
    let expected = MountCounters {
        age: Duration::from_secs(75),
        requests: 51,
        transmissions: 54,
        major_timeouts: 1,
        round_trips: Duration::from_millis(60),
        bytes_read: 4097,
        bytes_written: 5_000_002,
    };
    assert_eq!(stats.of(Path::new("/m/L2I="), "nas:/b"), Some(expected));
    let spaced = stats.of(Path::new("/m/with space"), "nas:/a b").expect("escapes are undone");
    assert_eq!((spaced.requests, spaced.bytes_written), (1, 8));
    let last = stats.of(Path::new("/m/last"), "nas:/last").expect("the last line has no end");
    assert_eq!((last.transmissions, last.round_trips), (3, Duration::from_millis(4)), "what is new at the end is left");
}

#[test]
fn ambiguous_mount_counters_are_left_out() {
    let stats = MountStats::parse(STATS);
    for (path, source) in
        [("/m/L2I=", "other:/b"), ("/m/twice", "nas:/twice"), ("/m/half", "nas:/half"), ("/proc", "proc")]
    {
        assert_eq!(stats.of(Path::new(path), source), None, "{path}");
    }
}

#[test]
fn parsed_mountstats_do_not_depend_on_the_piece_size() {
    let whole = MountStats::parse(STATS);
    for length in [1, 7, 64, 1000] {
        let mut parser = Parser::default();
        STATS.chunks(length).for_each(|piece| parser.feed(piece));
        assert_eq!(parser.end().mounts, whole.mounts, "{length}");
    }
    let mut parser = Parser::default();
    for _ in 0..100 {
        parser.feed(&[b'x'; PIECE_BYTES]);
    }
    assert!(parser.rest.len() <= LINE_MAX_BYTES, "a line without an end is not kept");
}

#[tokio::test]
async fn this_hosts_own_are_read() {
    let before = Instant::now();
    let stats = MountStats::read().await.expect("procfs");
    assert!(stats.read_at >= before);
}
