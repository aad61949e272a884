//! The worker's memory: the real binary under the kernel's limit of 256 MB, swap included.

use polyglot_devstack::memory_limit::{MemoryLimit, PeakMemory};
use polyglot_test_kit::{Setup, System, binary};
use polyglot_test_servers::needs_servers;

const LIMIT: u64 = 256 << 20;

#[tokio::test]
async fn every_format_stays_far_below_256_mb() {
    needs_servers!();
    let limit = MemoryLimit::new(LIMIT).unwrap_or_else(|error| panic!("this test needs root and a cgroup: {error}"));
    let mut system = System::without_worker(Setup::new(400_000, &[])).await;
    system.wait_until_ready().await;
    let pid = system.add_worker_as(limit.command(binary("polyglot-worker"))).child.id();
    let peak = PeakMemory::watch(pid);
    for (format, compression) in
        [("csv", None), ("json", Some("gzip")), ("jsonl", None), ("xml", None), ("parquet", None)]
    {
        let id = system.submit(format, compression).await;
        let state = system.wait_until_completed(&id).await;
        assert_eq!(state["progress"]["rows"], 400_000, "{state:#}");
        println!("{format}: peak so far {} MiB", peak.bytes() >> 20);
    }
    // Two at once, for which a worker has slots.
    let (first, second) = (system.submit("parquet", None).await, system.submit("xml", Some("gzip")).await);
    system.wait_until_completed(&first).await;
    system.wait_until_completed(&second).await;
    println!("two at once: peak {} MiB", peak.bytes() >> 20);
    system.workers[0].signal(rustix::process::Signal::TERM);
    let status = system.workers[0].wait_for_exit().await;
    assert!(status.success(), "{status}");
    assert_eq!(limit.oom_kills().unwrap(), 0);
    assert!(peak.bytes() < 200 << 20, "peak {} MiB", peak.bytes() >> 20);
}
