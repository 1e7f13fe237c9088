//! cgroup v1, v2, hybrid and systemd, behind one small trait.
