//! The mirror: RAID1 over two legs, pure core and one driver.
