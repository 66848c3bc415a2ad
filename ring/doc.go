// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package ring says which member of a fleet owns a key. All processes that ask agree, without talking to each other.
//
//	r, err := ring.New(ring.Equal("worker-0", "worker-1", "worker-2"))
//	...
//	worker := r.Members()[r.Owner(key)].Name // key: 64 well mixed bits, for example of a streamid.ID
//
// Keys are divided into slots by their top bits, and slots are distributed among the members by weight. With the default of
// 2^18 slots:
//
//   - No member exceeds its fair share by more than 1 % (or one slot, whichever is more).
//   - When a member joins or leaves, little more moves than necessary: see the table below.
//   - The same members and options give the same table on every machine, regardless of their order and of any earlier ring.
//   - Owner costs a shift and a load. A ring takes 2 bytes per slot, and some tens of milliseconds to build, with ten
//     members or with a thousand.
//
// [Diff] shows in advance what a change will move. [Ring.Owners] returns standbys: in a fleet of a hundred, 98 % of a
// member's slots go to their first standby when it leaves. [Rebalance] is for fleets with a coordinator: it balances
// perfectly and moves no slot more than necessary, but its result depends on history.
//
// # Numbers
//
// Highest and lowest load relative to the mean, and slots moved by a join and by a leave as multiples of the minimum, for
// members of equal weight; averages over four fleets. TestPackageCommentTable measures them:
//
//	go test -v -run TestPackageCommentTable
//
//	members  slots    eps        max        min    join   leave
//	      3   2^6    0.01      1.031      0.938    1.19    1.17
//	     10   2^6    0.01      1.094      0.469    1.67    1.58
//	     10   2^8    0.01      1.016      0.859    1.21    1.31
//	     30   2^8    0.01      1.055      0.469    1.16    1.27
//	     10   2^18   0.01      1.010      0.990    1.00    1.00
//	     30   2^18   0.01      1.010      0.981    1.01    1.00
//	     50   2^18   0.01      1.010      0.970    1.02    1.01
//	    100   2^16   0.01      1.009      0.946    1.17    1.17
//	    100   2^18   0.00      1.000      0.986    1.15    1.14
//	    100   2^18   0.01      1.010      0.956    1.04    1.04
//	    300   2^18   0.01      1.009      0.929    1.24    1.24
//	   1000   2^18   0.01      1.007      0.881    1.97    1.97
//	   1000   2^18   0.05      1.049      0.854    1.47    1.48
//	   1000   2^20   0.01      1.010      0.936    1.34    1.36
//	   1000   2^20   0.05      1.050      0.927    1.01    1.02
//
// Moves beyond the minimum grow with members / sqrt(slots): with hundreds of members, use more slots or a larger
// [WithBalance]. The whole fleet must agree on both, because rings with different options route differently. Near a thousand
// members on 2^18 slots, moves also depend on the exact number, because a cap is a whole number of slots: if the cap changes
// for all members at once (from 995, 999 or 1002 members to one more), 3.9 times the minimum moves.
//
// Use few slots, down to 16, for data that is itself divided into that many parts, such as logs with one writer each. Few
// slots cost balance: with fewer than a hundred slots per member, a member gets at most its fair share rounded up to a whole
// slot, and some get as little as half of it. More members than slots are an error.
//
// # Caveats
//
// The balance is that of slots. Keys add their own noise: the fullest of n members has about 1 + sqrt(2 n ln n / K) times
// the mean of K keys even if all members have equally many slots, which is 3 % above it for a hundred members and a million
// keys. Hashing cannot spread keys that are much hotter than others.
//
// Owner ignores health and load. Whoever makes the next ring must leave out members that do not answer.
//
// With up to a dozen members and few lookups, rendezvous hashing of every single key needs no table and has no cap that
// causes moves. This package does the same per slot.
//
// # How it works
//
// Every member ranks all slots, by a permutation that depends only on its name. The rank r, of P slots, costs a member of
// weight w: -log2(1 - (r + 1/2)/P) / w. A slot prefers the member with the lowest cost. If every slot got that member, this
// would be rendezvous hashing (Thaler and Ravishankar 1998) with exact weights: only what must move would move, but loads
// would vary like random numbers. So every load has a cap, the larger of the fair share q rounded up and q (1 + eps) rounded
// down, and a full member keeps the slots it ranks first. That is the stable assignment of Gale and Shapley (1962): no slot
// and member would both prefer each other to what they have. Because both sides judge by the same cost, there is only one
// such assignment. It is the one obtained by going through all pairs of slot and member from the cheapest to the most
// expensive, and joining each pair whose slot is free and whose member is not full. It is therefore independent of order and
// history. Caps on consistent hashing are due to Mirrokni, Thorup and Zadimoghaddam (2018).
//
// All of this is integer arithmetic, and frozen: version 1 of the table, with golden hashes in testdata. In detail: the seed
// of a member is the XXH3-64 of its name; its permutation from ranks to slots is a Feistel network of four rounds whose keys
// are the first four outputs of SplitMix64 from that seed; equal costs are decided by a further hash of seed and slot, then
// by name. With a permutation instead of independent hashes a member can name its slots in order, so building takes about 15
// steps per slot rather than one per slot and member.
//
// # Why not perfect
//
// Call a scheme stateless if the owner of a slot depends on the set of members alone, and minimal if no slot ever moves
// between two members that are there before and after. A scheme that is both is a rendezvous: every slot ranks all
// possible members once and for all and takes the first that is there, for that is what it means that a choice does not
// change when others than the chosen are taken away. To be balanced for every set as well, the slots' rankings must be
// min-wise independent (Broder, Charikar, Frieze and Mitzenmacher 1998), so the number of slots must be a multiple of
// every number of members: lcm(1..n) is about e^n, 7*10^40 for a hundred. Members whose names are not known beforehand
// rank at random in effect, and then an excess of at most eps takes about 2 n ln n / eps^2 slots, 9 million for a
// hundred members and 1 %. So of {balance within 1 %, minimal moves, no state, a small table} one has to go. New gives
// up a little of the second: to restore the balance after a change it moves somewhat more than the minimum. Rebalance
// gives up the third.
package ring
