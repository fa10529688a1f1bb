;; Memory that is mapped, stored to and loaded from, a page at a time.
(module
  (import "pagewarden" "mmap" (func $mmap (param i32 i32 i32 i32 i32 i64) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 65536) "a page of data")
  (global $count (mut i32) (i32.const 0))

  ;; Maps $len bytes of private memory.
  (func (export "map") (param $len i32) (result i32)
    (call $mmap (i32.const 0) (local.get $len) (i32.const 3) (i32.const 0x22) (i32.const -1) (i64.const 0)))

  ;; Stores $value in every page of $len bytes from $at on.
  (func (export "store") (param $at i32) (param $len i32) (param $value i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (loop $next
      (i32.store (local.get $at) (local.get $value))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))

  ;; The same for $pages pages, a power of two, in an order that looks random.
  (func (export "scatter") (param $at i32) (param $pages i32) (param $value i32)
    (local $i i32)
    (loop $next
      (i32.store
        (i32.add (local.get $at) (i32.shl
          (i32.and (i32.mul (local.get $i) (i32.const 40503)) (i32.sub (local.get $pages) (i32.const 1)))
          (i32.const 12)))
        (local.get $value))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $pages)))))

  ;; Adds up what is in every page of $len bytes from $at on.
  (func (export "load") (param $at i32) (param $len i32) (result i32)
    (local $end i32) (local $sum i32)
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (loop $next
      (local.set $sum (i32.add (local.get $sum) (i32.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $sum))

  ;; What a little program does at first: its data, its stack, a counter.
  (func (export "begin") (result i32)
    (i32.store (i32.const 65600) (i32.load (i32.const 65536)))
    (i32.store (i32.const 131000) (i32.const 1))
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (global.get $count)))
