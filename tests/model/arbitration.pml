/* Two nodes, their arbiter, a link that breaks, messages that are lost, crashes: who may run the guest and be
 * heard. README.md says which line of the code each part stands for, and how to run it.
 *
 * What the guest has done is a number, `val`: it rises with each epoch. `released` is the most that the outside
 * was told. `owner` and `base` are the truth that no node can see: who has the guest, and from which epoch on.
 *
 * Faults are finite (the budgets), so what is true after the last fault can be asked: LTL `again`.
 */

#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef BREAKS
#define BREAKS 2 /* the link, or a node that believes so */
#endif
#ifndef LOST_ANSWERS
#define LOST_ANSWERS 1 /* of the arbiter's; the claim was made */
#endif
#ifndef OUTAGES
#define OUTAGES 1 /* of the arbiter */
#endif

#define MAX_VAL 3

mtype = {
  kDown,     /* the host is off, or the daemon is not there */
  kBootAsk,  /* restarted, and the arbiter's record names it: claims the next term to boot the guest */
  kSolo,     /* primary, alone, output open */
  kSyncAsk,  /* primary, a secondary has accepted; claims the stream's term before anything is sent */
  kSyncing,  /* primary, full sync */
  kProtected,  /* primary, epochs are cut, output leaves with their acks */
  kHold,     /* primary, lost its secondary, output held */
  kSoloAsk,  /* ... and claims a term of its own */
  kFenced,   /* lost the term: guest stopped, output discarded */
  kStandby,  /* secondary, holds nothing that could be promoted */
  kReceive,  /* secondary, full sync comes in */
  kFollow,   /* secondary, holds a committed epoch, the stream stands */
  kLost,     /* secondary, holds a committed epoch, the stream is gone */
  kAsk       /* ... and claims a term to promote in */
};

typedef Node {
  mtype mode = kDown;
  bool running;    /* its vCPUs may run */
  bool open;       /* what its guest says leaves at once */
  byte term;       /* of the stream, or that the arbiter confirmed to it */
  byte newest;     /* ever heard of */
  byte val;        /* of its guest, its replica, or after a crash of its disks */
  byte session;    /* 0: no stream */
  byte claim_from, claim_to;
  byte data, ack;  /* on its way to this node, 0: nothing */
};

Node n[2];
byte record_term, record_holder;
bool arbiter_up = true;
byte sessions;  /* begun so far */

byte released;
byte owner, base;

byte crashes, breaks, lost_answers, outages;

#define other (1 - i)
#define link_stands(i) (n[i].session != 0 && n[1 - (i)].session == n[i].session)
#define max(a, b) ((a) > (b) -> (a) : (b))
/* Each number belongs to one node; a promotion leaps over one that went solo at the same time. */
#define next_term(i, above) ((above) + 1 + (((above) + 1 + (i)) & 1))

inline no_stream() {
  n[i].session = 0;
  n[i].data = 0;
  n[i].ack = 0
}

/* The guest goes on here, alone, and is heard. */
inline go_solo() {
  n[i].running = true;
  n[i].open = true;
  n[i].mode = kSolo;
  say(n[i].val)
}

/* P1, P2: whoever is heard has the guest, or says again what it said. */
inline say(what) {
  assert(owner == i || what <= base);
  released = max(released, what)
}

inline take_over() {
  assert(released <= n[i].val);
  owner = i;
  base = n[i].val
}

inline fence() {
  n[i].running = false;
  n[i].open = false;
  no_stream();
  n[i].mode = kFenced
}

inline claim(to, asking) {
  n[i].claim_from = n[i].term;
  n[i].claim_to = to;
  n[i].newest = max(n[i].newest, to);
  n[i].mode = asking
}

/* What the arbiter does with a claim: compare and swap. */
inline swap() {
  if
  :: record_term == n[i].claim_from -> record_term = n[i].claim_to; record_holder = i
  :: else
  fi
}

#define claim_holds(i) (record_term == n[i].claim_to && record_holder == (i))

inline yes() {
  n[i].term = n[i].claim_to;
  if
  :: n[i].mode == kBootAsk -> take_over(); go_solo()
  :: n[i].mode == kAsk -> take_over(); go_solo()
  :: n[i].mode == kSoloAsk -> go_solo()
  :: n[i].mode == kSyncAsk && n[i].session != 0 -> n[i].mode = kSyncing
  :: n[i].mode == kSyncAsk && n[i].session == 0 -> go_solo() /* no epoch of this term was cut */
  fi
}

inline no() {
  n[i].newest = max(n[i].newest, record_term);
  if
  :: n[i].mode == kAsk || n[i].mode == kBootAsk -> n[i].mode = kStandby
  :: else -> fence()
  fi
}

/* The handshake. The secondary begins anew with what it accepts; that its word arrives is not certain. */
inline connect() {
  n[i].newest = max(n[i].newest, n[other].newest);
  sessions++;
  n[other].newest = next_term(i, n[i].newest);
  n[other].term = n[other].newest;
  n[other].session = sessions;
  n[other].data = 0;
  n[other].ack = 0;
  n[other].mode = kReceive;
  if
  :: n[i].session = sessions;
     n[i].newest = n[other].newest;
     n[i].data = 0;
     n[i].ack = 0;
     claim(n[other].term, kSyncAsk) /* output that was held stays so until the first ack */
  :: breaks < BREAKS -> breaks++
  fi
}

#ifdef ACCEPT_WHILE_ASKING
#define accepts(i) (n[i].mode == kStandby || n[i].mode == kLost || n[i].mode == kAsk)
#else
#define accepts(i) (n[i].mode == kStandby || n[i].mode == kLost)
#endif

proctype Daemon(byte i) {
  do
  /* --- start */
  :: atomic { n[i].mode == kDown && arbiter_up ->
       n[i].newest = max(n[i].newest, record_term);
       if
       :: record_holder == i -> n[i].term = record_term; claim(next_term(i, n[i].newest), kBootAsk)
       :: else -> n[i].mode = kStandby
       fi }

  /* --- primary */
  :: atomic { n[i].mode == kSolo && n[i].val < MAX_VAL -> n[i].val++; say(n[i].val) }
  :: atomic { (n[i].mode == kSolo || n[i].mode == kHold) && accepts(other) -> connect() }
  :: atomic { n[i].mode == kSyncing && link_stands(i) -> n[i].open = false; n[i].mode = kProtected }
  :: atomic { n[i].mode == kProtected && link_stands(i) && n[other].data == 0 ->
       if
       :: n[i].val < MAX_VAL -> n[i].val++
       :: else
       fi;
       n[other].data = n[i].val
#ifdef RELEASE_BEFORE_ACK
       ; say(n[i].val)
#endif
     }
  :: atomic { n[i].mode == kProtected && n[i].session != 0 && n[i].ack != 0 -> say(n[i].ack); n[i].ack = 0 }
  :: atomic { n[i].mode == kHold -> claim(next_term(i, n[i].newest), kSoloAsk) }
  :: atomic { n[i].mode == kHold && n[other].running && owner == other -> fence() }

  /* --- secondary */
  :: atomic { (n[i].mode == kReceive || n[i].mode == kFollow) && n[i].data != 0 ->
       n[i].val = n[i].data;
       n[i].data = 0;
       n[i].mode = kFollow;
       if
       :: link_stands(i) -> n[other].ack = n[i].val
       :: else
       fi }
  :: atomic { n[i].mode == kLost ->
#ifdef PROMOTE_WITHOUT_ARBITER
       n[i].term = next_term(i, n[i].newest + 2);
       n[i].newest = n[i].term;
       take_over();
       go_solo()
#else
       claim(next_term(i, n[i].newest + 2), kAsk)
#endif
     }

  /* --- the arbiter's answers */
  :: atomic { (n[i].mode == kBootAsk || n[i].mode == kSoloAsk || n[i].mode == kSyncAsk || n[i].mode == kAsk) &&
       arbiter_up ->
       swap();
       if
       :: claim_holds(i) -> yes()
       :: !claim_holds(i) -> no()
       :: lost_answers < LOST_ANSWERS -> lost_answers++
       fi }

  /* --- the loser is a candidate again */
  :: atomic { n[i].mode == kFenced -> n[i].mode = kStandby }

  /* --- the stream ends: for both, for one, or because the other began a new one */
  :: atomic { n[i].session != 0 && (!link_stands(i) || breaks < BREAKS) ->
       if
       :: link_stands(i) -> breaks++
       :: else
       fi;
       no_stream();
       if
       :: n[i].mode == kReceive -> n[i].mode = kStandby
       :: n[i].mode == kFollow -> n[i].mode = kLost
       :: n[i].mode == kProtected -> n[i].mode = kHold
       :: n[i].mode == kSyncing -> go_solo() /* no epoch of this term was cut */
       :: n[i].mode == kSyncAsk /* what was claimed must be known first */
       fi }

  /* --- the host dies; its disks have what its guest, or its journal, had */
  :: atomic { n[i].mode != kDown && crashes < CRASHES ->
       crashes++;
       no_stream();
       n[i].running = false;
       n[i].open = false;
       n[i].mode = kDown }
  od
}

proctype Outage() {
  do
  :: atomic { arbiter_up && outages < OUTAGES -> arbiter_up = false; outages++ }
  :: atomic { !arbiter_up -> arbiter_up = true }
  od
}

init {
  atomic {
    record_term = 2; /* node 0 was the first to boot the guest: the record is its */
    record_holder = 0;
    n[0].newest = 2;
    n[0].val = 1;
    run Daemon(0);
    run Daemon(1);
    run Outage()
  }
}

#define one_is_heard (!(n[0].open && n[1].open))
#define terms_differ (!(n[0].running && n[1].running && n[0].term == n[1].term))
#define in_step ((n[0].mode == kProtected && n[1].mode == kFollow) || (n[1].mode == kProtected && n[0].mode == kFollow))

ltl safe { [] (one_is_heard && terms_differ) }
ltl again { [] <> in_step }
