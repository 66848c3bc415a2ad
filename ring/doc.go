// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package ring says which member of a fleet owns a key, such that all who ask agree without talking to each other.
//
//	r, err := ring.New(ring.Equal("worker-0", "worker-1", "worker-2"))
//	...
//	worker := r.Members()[r.Owner(key)].Name // key: 64 well mixed bits, for example of a streamid.ID
//
// The keys are divided into slots by their top bits, and the slots among the members by their weights. With the default
// of 2^18 slots:
//
//   - No member has more than 1 % above its fair share (or one slot, where that is more).
//   - When a member joins or leaves, little more moves than must: see the table below.
//   - The same members and options make the same table on every machine, in whatever order they are listed, and whatever
//     the ring was before.
//   - Owner is a shift and a load. A ring takes 2 bytes per slot, and some tens of milliseconds to build whether it has ten
//     members or a thousand.
//
// [Diff] says before a change what it will move. [Ring.Owners] names standbys: 98 % of the slots of a member out of a
// hundred go to their first standby when it leaves. [Rebalance] is for fleets that have a coordinator: perfect balance
// and not one slot too many moved, at the price of depending on history.
//
// # Numbers
//
// Members of equal weight: highest and lowest load as parts of the mean, and the slots moved by a join and by a leave as
// multiples of the minimum, on average of four fleets. TestPackageCommentTable measures them:
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
// What moves beyond the minimum grows with members / sqrt(slots): hundreds of members want more slots or a larger
// [WithBalance]. Both are for the whole fleet to agree on: rings with different options route differently. Near a thousand
// members on 2^18 slots it also depends on the exact number, because a cap is a whole number of slots: where it steps for
// all at once (from 995, 999 or 1002 members to one more), 3.9 times the minimum moves.
//
// Few slots, down to 16, are for what is itself divided into so many parts, such as logs that want one writer each. They cost balance:
// with fewer than a hundred slots for each member, a member has at most the fair share rounded up to a whole slot, and some have as
// little as half of it. More members than slots are an error.
//
// # Caveats
//
// The promise is about slots. Keys add their own noise: the fullest of n members has about 1 + sqrt(2 n ln n / K) times
// the mean of K keys even if all slots are the same size, which is 3 % for a hundred members and a million keys. Keys
// that are much hotter than others are beyond hashing.
//
// Owner knows no health and no load. A member that does not answer is to be taken out by whoever makes the next ring.
//
// With up to a dozen members and few lookups, rendezvous hashing of every single key needs no table and has no cap to
// cause a move. This package does the same per slot.
//
// # How it works
//
// Every member ranks all slots, by a permutation that depends on its name only. The rank r, of P slots, costs a member
// of weight w: -log2(1 - (r + 1/2)/P) / w. A slot prefers the member that it costs least. If every slot got that one,
// this would be rendezvous hashing (Thaler and Ravishankar 1998) with exact weights: nothing moves but what must, but
// loads spread like random numbers. So there is a cap on every load, its fair share q rounded up or q (1 + eps) rounded
// down, whichever is more, and a full member keeps the slots it ranks first. That is the stable assignment of Gale and
// Shapley (1962): no slot and no member would both rather have each other than what they have. Since both sides judge
// by the same cost it is the only one, and the same as if all pairs of slot and member were joined from the cheapest to
// the most expensive as far as both are still to be had. Hence the independence from order and history. Caps on
// consistent hashing are due to Mirrokni, Thorup and Zadimoghaddam (2018).
//
// All of it is integer arithmetic, and frozen: version 1 of the table, with golden hashes in testdata. In detail: the
// seed of a member is the XXH3-64 of its name; its permutation from ranks to slots is a Feistel network of four rounds
// whose keys are the first four outputs of SplitMix64 from that seed; equal costs are decided by a further hash of seed
// and slot, then by name. A permutation instead of independent hashes lets a member name its slots in order, which is
// why building takes about 15 steps per slot and not one per slot and member.
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
