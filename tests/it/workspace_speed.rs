//! What a worktree of a large repository costs. Run by hand:
//! `cargo test -p dispatch-tests --test it workspace_speed -- --ignored --nocapture`.

use std::time::Instant;

use crate::harness::repo::{Ground, approve, sh};

#[tokio::test]
#[ignore = "measures; takes half a minute"]
async fn a_repository_of_fifty_thousand_files() {
    let ground = Ground::empty();
    sh(
        &ground.repo,
        "python3 - <<'P'
import os
for d in range(2000):
    os.makedirs(f'd{d%50}/s{d}')
    for f in range(25):
        open(f'd{d%50}/s{d}/f{f}.txt','w').write(f'{d} {f} some line of text\\n'*40)
P",
    );
    ground.commit("large");
    sh(&ground.repo, "git gc -q");
    for n in 1..=2 {
        let start = Instant::now();
        let worktree = ground.worktree(n).await;
        println!("create {n}: {:?}", start.elapsed());
        let start = Instant::now();
        let untouched = ground.snapshot(&worktree).await;
        println!("snapshot, nothing changed: {:?}", start.elapsed());
        assert!(untouched.files.is_empty());
        sh(
            &worktree.tree,
            "for n in 1 2 3 4 5 6; do echo x >>d$n/s$n/f1.txt; done; rm d7/s7/f1.txt; git mv d8/s8/f1.txt moved.txt; echo new >new",
        );
        let start = Instant::now();
        let snapshot = ground.snapshot(&worktree).await;
        println!("snapshot, 9 files changed: {:?}", start.elapsed());
        assert_eq!(snapshot.files.len(), 9);
        let start = Instant::now();
        ground.work.discard(&ground.project(), worktree).await;
        println!("discard, until the name is free: {:?}", start.elapsed());
        ground.work.close().await;
        println!("discard, until the disk is: {:?}", start.elapsed());
        if n == 2 {
            let start = Instant::now();
            ground
                .work
                .apply(&ground.project(), approve(1, &snapshot))
                .await
                .unwrap();
            println!("apply: {:?}", start.elapsed());
        }
    }
}
