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
#define LOST_ANSWERS 1 /* of the arbiter's; the claim was made, or will be when its swap arrives */
#endif
#ifndef OUTAGES
#define OUTAGES 1 /* of the arbiter */
#endif
#ifndef SWITCHOVERS
#define SWITCHOVERS 0 /* that an operator asks for */
#endif
#ifndef DEAF
#define DEAF 0 /* losses of the second path */
#endif
#ifndef REPLICAS_LOST
#define REPLICAS_LOST 0 /* to a secondary's disks */
#endif
#ifndef FAILED_PROMOTIONS
#define FAILED_PROMOTIONS 0
#endif
/* SECOND_PATH: there is one. */

#define MAX_VAL 3

mtype = {
  kDown,     /* the host is off, or the daemon is not there */
  kBootAsk,  /* restarted, and the arbiter's record names it: boots the guest, and claims the next term */
  kSolo,     /* primary, alone, output open */
  kSyncAsk,  /* primary, a secondary has accepted; claims the stream's term before anything is sent */
  kSyncing,  /* primary, full sync */
  kProtected,  /* primary, epochs are cut, output leaves with their acks */
  kSoloAsk,  /* primary, lost its secondary, output held; claims a term of its own */
  kDraining,  /* primary, hands over: the guest stands still, the last epoch is on its way */
  kOffered,  /* ... the secondary was told to go on from it */
  kUnsure,   /* ... the arbiter says that the other has the term; held until it is met with a guest */
  kStandby,  /* secondary, holds nothing that it would promote */
  kReceive,  /* secondary, full sync comes in */
  kFollow,   /* secondary, holds a committed epoch, the stream stands */
  kLost,     /* secondary, holds a committed epoch, the stream is gone */
  kAsk,      /* ... and claims a term to promote in; the stream may stand, of a primary that is silent or hands over */
  kTakeBack,  /* secondary, has claimed, and lost its replica since */
  kPromoting,  /* secondary, the term is its own, the guest is about to run */
  kYes, kRefused, kFailed  /* answers to a hand-over */
};

typedef Node {
  mtype mode = kDown;
  bool running;    /* its vCPUs may run */
  bool open;       /* what its guest says leaves at once */
  bool unsure;     /* primary: what it offered was not answered */
  bool handed;     /* secondary: what it claims, or promotes, was offered to it */
  bool deaf;       /* does not hear the other on the second path */
  byte term;       /* of the stream, or that the arbiter confirmed to it */
  byte newest;     /* ever heard of */
  byte val;        /* of its guest, its replica, or after a crash of its disks; 0: of nothing whole */
  byte stream;     /* kNone, kStands, kDangles */
  byte claim_from, claim_to;
  byte own;        /* secondary: newer than `term`, and confirmed to it; 0: none */
  byte late;       /* a swap of its that is on its way, to this term; 0: none */
  byte giving;     /* a term that it gives back; 0: none */
  byte data, ack, offer;  /* on its way to this node, 0: nothing */
  mtype answer;           /* likewise */
  byte answer_term;
};

#define kNone 0
#define kStands 1
#define kDangles 2 /* the other end is gone, and this one has not noticed */

Node n[2];
byte record_term, record_holder;
bool arbiter_up = true;

byte released;
byte owner, base;

byte crashes, breaks, lost_answers, outages, switchovers, losses, replicas_lost, failed_promotions;

#define other (1 - i)
#define link_stands(i) (n[i].stream == kStands)
#define max(a, b) ((a) > (b) -> (a) : (b))
/* Each number belongs to one node; a promotion leaps over one that went solo at the same time. */
#define next_term(i, above) ((above) + 1 + (((above) + 1 + (i)) & 1))
#define promotion_term(i) next_term(i, n[i].newest + 2)
#ifdef SECOND_PATH
#define second_heard(i) (!n[i].deaf && n[1 - (i)].mode != kDown)
#else
#define second_heard(i) false
#endif

inline nothing_comes(who) {
  n[who].data = 0;
  n[who].ack = 0;
  n[who].offer = 0;
  n[who].answer = 0;
  n[who].answer_term = 0
}

inline no_stream() {
  if
  :: n[i].stream == kStands -> n[other].stream = kDangles
  :: else
  fi;
  n[i].stream = kNone;
  nothing_comes(i)
}

#define one_is_heard (!(n[0].open && n[1].open))
#define terms_differ (!(n[0].running && n[1].running && n[0].term == n[1].term))

/* The guest goes on here, alone, and is heard. */
inline go_solo() {
  n[i].running = true;
  n[i].open = true;
  n[i].unsure = false;
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

/* The guest ends here, and the daemon begins anew. */
inline fence() {
  n[i].running = false;
  n[i].open = false;
  n[i].unsure = false;
  no_stream();
  n[i].mode = kStandby
}

inline claim_over() {
  n[i].claim_from = 0;
  n[i].claim_to = 0
}

inline claim(from, to, asking) {
  n[i].claim_to = to;
  n[i].claim_from = from;
  assert(n[i].claim_to < 250); /* no byte runs over */
  n[i].newest = max(n[i].newest, n[i].claim_to);
  n[i].mode = asking
}

/* The primary's stream is gone, and the secondary may hold an epoch. */
inline hold_and_ask() {
  n[i].open = false;
  no_stream();
  claim(n[i].term, next_term(i, n[i].newest), kSoloAsk)
}

/* A swap is conditional on the record's revision: whoever puts the record, even the same, dooms what is on its way. */
inline put(to, holder) {
  record_term = to;
  record_holder = holder;
  n[0].late = 0;
  n[1].late = 0
}

/* What the arbiter does with a claim: compare and swap. */
inline swap() {
  if
  :: record_term == n[i].claim_from -> put(n[i].claim_to, i)
  :: else
  fi
}

#define claim_holds(i) (record_term == n[i].claim_to && record_holder == (i))

inline yes() {
  if
  :: n[i].mode == kTakeBack -> n[i].own = n[i].claim_to; give_back(i); n[i].mode = kStandby
  :: n[i].mode == kAsk ->
       n[i].own = n[i].claim_to;
       n[i].mode = kPromoting;
       if
       :: n[i].handed /* the primary waits for the guest to run */
       :: else -> no_stream()
       fi
  :: else ->
       n[i].term = n[i].claim_to;
       if
       :: n[i].mode == kBootAsk -> take_over(); go_solo()
       :: n[i].mode == kSyncAsk && n[i].stream != kNone ->
            n[i].mode = kSyncing;
            if
            :: link_stands(i) -> n[other].val = 0 /* written over */
            :: else
            fi
       :: n[i].mode == kSyncAsk && n[i].stream == kNone -> go_solo() /* no epoch of this term was cut */
       :: n[i].mode == kSoloAsk -> go_solo()
       fi
  fi;
  if
  :: n[i].mode != kPromoting -> claim_over()
  :: else
  fi
}

inline no() {
  n[i].newest = max(n[i].newest, record_term);
  if
  :: record_holder == i -> /* an earlier claim took effect, or the term was given back */
       if
       :: n[i].mode == kAsk -> n[i].own = record_term; claim(record_term, promotion_term(i), kAsk)
       :: n[i].mode == kSyncAsk ->
            no_stream();
            n[i].term = record_term;
            claim_over();
            go_solo()
       :: else -> n[i].term = record_term; claim(record_term, next_term(i, n[i].newest), n[i].mode)
       fi
  :: else ->
       if
       :: n[i].mode == kAsk -> no_stream(); n[i].handed = false; n[i].own = 0; n[i].mode = kStandby
#ifndef FENCE_WHEN_UNSURE
       :: n[i].mode != kAsk && n[i].unsure -> no_stream(); n[i].mode = kUnsure
#endif
       :: else ->
            assert(!n[i].unsure); /* nobody else need have the guest */
            fence()
       fi;
       claim_over()
  fi
}

/* There is nothing any more that a confirmed term could be used for. */
inline give_back(who) {
  if
  :: n[who].own != 0 -> n[who].giving = n[who].own; n[who].own = 0
  :: else
  fi
}

/* The handshake. The secondary begins anew with what it accepts; that its word arrives is not certain. */
inline connect() {
  n[i].newest = max(n[i].newest, n[other].newest);
  n[other].newest = next_term(i, n[i].newest);
#ifndef KEEP_LOST_TERM
  give_back(other);
#endif
  n[other].own = 0;
  n[other].claim_from = 0;
  n[other].claim_to = 0;
  n[other].term = n[other].newest;
  n[other].handed = false;
  nothing_comes(other);
  n[other].mode = kReceive;
  if
  :: n[i].mode == kUnsure -> /* what was accepted is closed: the record is to decide */
     n[other].stream = kDangles;
     hold_and_ask()
  :: n[i].mode != kUnsure ->
     n[i].stream = kStands;
     n[other].stream = kStands;
     n[i].newest = n[other].newest;
     nothing_comes(i);
     claim(n[i].term, n[other].term, kSyncAsk) /* output that was held stays so until the first ack */
  :: n[i].mode != kUnsure && breaks < BREAKS ->
     breaks++;
     n[other].stream = kDangles
  fi
}

#ifdef ACCEPT_WHILE_ASKING
#define accepts(i) (n[i].mode == kStandby || n[i].mode == kLost || n[i].mode == kAsk)
#else
#define accepts(i) (n[i].mode == kStandby || n[i].mode == kLost)
#endif

/* The other node hears `what`, if the stream stands. */
inline reply(what) {
  if
  :: link_stands(i) -> n[other].answer = what; n[other].answer_term = n[i].claim_to
  :: else
  fi
}

/* Nothing is held any more. */
inline drop_replica() {
  n[i].val = 0;
  give_back(i);
  no_stream();
  n[i].handed = false;
  n[i].mode = kStandby
}

proctype Daemon(byte i) {
  do
  /* --- start */
  :: atomic { n[i].mode == kDown && arbiter_up ->
#ifdef START_WITHOUT_TOUCH
       skip;
#else
       put(record_term, record_holder); /* what it claimed in an earlier life has taken effect, or never will */
#endif
       n[i].newest = max(n[i].newest, record_term);
       if
       :: record_holder == i ->
            n[i].term = record_term;
            n[i].running = true;
            claim(n[i].term, next_term(i, n[i].newest), kBootAsk)
       :: else -> n[i].mode = kStandby
       fi }

  /* --- primary */
  :: atomic { n[i].open && n[i].val < MAX_VAL -> n[i].val++; say(n[i].val) }
  :: atomic { n[i].mode == kSolo && accepts(other) -> connect() }
  /* A no to what follows would leave all as it was, but for higher terms: only where it changes something. */
  :: atomic { n[i].mode == kUnsure && accepts(other) && (n[other].mode != kStandby || record_holder == i) -> connect() }
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
  :: atomic { n[i].mode == kProtected && n[i].ack != 0 -> say(n[i].ack); n[i].unsure = false; n[i].ack = 0 }

  /* --- primary that hands over */
  :: atomic { n[i].mode == kProtected && link_stands(i) && n[other].data == 0 && n[i].ack == 0 &&
       switchovers < SWITCHOVERS ->
       switchovers++;
       if
       :: n[i].val < MAX_VAL -> n[i].val++
       :: else
       fi;
       n[other].data = n[i].val;
       n[i].mode = kDraining }
  :: atomic { n[i].mode == kDraining && n[i].ack != 0 ->
       say(n[i].ack);
       n[i].ack = 0;
       n[i].mode = kOffered;
       if
       :: link_stands(i) -> n[other].offer = n[i].val
       :: else
       fi }
  :: atomic { n[i].mode == kOffered && n[i].answer == kYes -> assert(owner == other); fence() }
  :: atomic { n[i].mode == kOffered && n[i].answer == kRefused -> n[i].answer = 0; n[i].answer_term = 0; n[i].mode = kProtected }
  :: atomic { n[i].mode == kOffered && n[i].answer == kFailed ->
       n[i].term = max(n[i].term, n[i].answer_term);
       n[i].newest = max(n[i].newest, n[i].answer_term);
       n[i].unsure = true;
       hold_and_ask() }
  :: atomic { n[i].mode == kOffered -> n[i].unsure = true; hold_and_ask() } /* no answer in time */
  :: atomic { n[i].mode == kUnsure && n[other].running -> fence() } /* they have met */

  /* --- secondary */
  :: atomic { (n[i].mode == kReceive || n[i].mode == kFollow || n[i].mode == kAsk) && n[i].data != 0 ->
       n[i].val = n[i].data;
       n[i].data = 0;
       if
       :: n[i].mode == kReceive -> n[i].mode = kFollow
       :: else
       fi;
       if
       :: link_stands(i) -> n[other].ack = n[i].val
       :: else
       fi }
  :: atomic { n[i].mode == kLost && !second_heard(i) ->
#ifdef PROMOTE_WITHOUT_ARBITER
       n[i].claim_to = promotion_term(i);
       n[i].mode = kPromoting
#else
       claim(n[i].term, promotion_term(i), kAsk)
#endif
     }

  /* The primary is silent for a moment, and the stream stands. */
  :: atomic { n[i].mode == kFollow && link_stands(i) && breaks < BREAKS && !second_heard(i) ->
       breaks++;
       claim(n[i].term, promotion_term(i), kAsk) }

  /* Its disks cannot take what comes. */
  :: atomic { (n[i].mode == kReceive || n[i].mode == kFollow || n[i].mode == kLost || n[i].mode == kAsk) &&
       replicas_lost < REPLICAS_LOST ->
       replicas_lost++;
       if
       :: n[i].mode == kAsk -> drop_replica(); n[i].mode = kTakeBack
       :: else -> drop_replica()
       fi }

  /* What the primary offers. */
  :: atomic { n[i].offer != 0 && n[i].data == 0 ->
       if
       :: n[i].mode == kFollow && n[i].val == n[i].offer ->
            n[i].handed = true;
#ifdef SWITCHOVER_WITHOUT_RECORD
            n[i].claim_to = promotion_term(i);
            n[i].mode = kPromoting
#else
            claim(n[i].term, promotion_term(i), kAsk)
#endif
       :: else -> reply(kRefused)
       fi;
       n[i].offer = 0 }

  :: atomic { n[i].mode == kPromoting ->
       n[i].term = n[i].claim_to;
       take_over();
       reply(kYes);
       no_stream();
       claim_over();
       n[i].own = 0;
       n[i].handed = false;
       go_solo() }
  :: atomic { n[i].mode == kPromoting && failed_promotions < FAILED_PROMOTIONS ->
       failed_promotions++;
       if
       :: n[i].handed && n[i].stream != kNone ->
            reply(kFailed);
            drop_replica()
       :: else ->
            no_stream();
            n[i].handed = false;
            if
            :: n[i].mode = kLost /* what it holds is whole, and an operator tries again */
            :: drop_replica()
            fi
       fi;
       claim_over() }

  /* --- the stream ends: for both, for one, or because the other began a new one */
  :: atomic { n[i].stream == kDangles || (n[i].stream == kStands && breaks < BREAKS) ->
       if
       :: n[i].stream == kStands -> breaks++
       :: else
       fi;
       if
       :: n[i].mode == kReceive -> no_stream(); n[i].mode = kStandby
       :: n[i].mode == kFollow -> no_stream(); n[i].mode = kLost
       :: n[i].mode == kProtected || n[i].mode == kDraining -> hold_and_ask()
       :: n[i].mode == kOffered -> n[i].unsure = true; hold_and_ask()
       :: n[i].mode == kSyncing && n[i].open -> no_stream(); go_solo() /* no epoch of this term was cut */
       :: n[i].mode == kSyncing && !n[i].open -> hold_and_ask()
       :: else -> no_stream() /* what was claimed must be known first */
       fi }

  /* --- the host dies; its disks have what its guest, or its journal, had */
  :: atomic { n[i].mode != kDown && crashes < CRASHES && n[i].giving == 0 && n[i].mode != kTakeBack ->
       crashes++;
       no_stream();
       claim_over();
       n[i].own = 0;
       n[i].running = false;
       n[i].open = false;
       n[i].unsure = false;
       n[i].handed = false;
       n[i].mode = kDown }
  od
}

/* What a node asks the arbiter, apart from all else that it does. */
proctype Asks(byte i) {
  do
  /* --- a swap that was sent arrives late, whatever has become of its node */
  :: atomic { n[i].late != 0 && arbiter_up -> put(n[i].late, i) }

  /* --- the arbiter's answers */
  :: atomic { (n[i].mode == kBootAsk || n[i].mode == kSoloAsk || n[i].mode == kSyncAsk || n[i].mode == kAsk) &&
       arbiter_up ->
       if
       :: swap();
          if
          :: claim_holds(i) -> yes()
          :: !claim_holds(i) -> no()
          :: lost_answers < LOST_ANSWERS -> lost_answers++
          fi
       :: lost_answers < LOST_ANSWERS && record_term == n[i].claim_from ->
          lost_answers++;
          n[i].late = n[i].claim_to
       fi }

  /* --- what was claimed is not wanted any more: the primary is heard again, or the replica is lost */
  :: atomic { ((n[i].mode == kAsk && n[i].stream != kNone) || n[i].mode == kTakeBack) && arbiter_up ->
#ifndef FORGET_CLAIM
       if
       :: claim_holds(i) -> yes()
       :: else ->
#ifndef WITHDRAW_WITHOUT_TOUCH
            if
            :: record_term == n[i].claim_from -> put(record_term, record_holder)
            :: else
            fi;
#endif
#endif
            if
            :: n[i].mode == kAsk -> n[i].mode = kFollow; n[i].handed = false
            :: else -> n[i].mode = kStandby
            fi;
            claim_over()
#ifndef FORGET_CLAIM
       fi
#endif
     }
  od
}

proctype Outage() {
  do
  :: atomic { arbiter_up && outages < OUTAGES -> arbiter_up = false; outages++ }
  :: atomic { !arbiter_up -> arbiter_up = true }
  od
}

#ifdef SECOND_PATH
proctype SecondPath(byte i) {
  do
  :: atomic { !n[i].deaf && losses < DEAF -> n[i].deaf = true; losses++ }
  :: atomic { n[i].deaf -> n[i].deaf = false }
  od
}
#endif

#define both_wait (n[0].mode == kStandby && n[1].mode == kStandby)

/* A term is given back until the arbiter has answered. When then nobody has the guest, somebody starts the node
 * that the record names. */
proctype GivenBack(byte i) {
  do
  :: atomic { n[i].giving != 0 && arbiter_up ->
       if
       :: record_term == n[i].giving && record_holder == i -> put(record_term, other)
       :: else
       fi;
       n[i].giving = 0 }
  :: atomic { both_wait && n[0].giving == 0 && n[1].giving == 0 && record_holder == i && n[i].val != 0 ->
       n[i].mode = kDown }
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
    run Asks(0);
    run Asks(1);
    run Outage();
#ifdef SECOND_PATH
    run SecondPath(0);
    run SecondPath(1);
#endif
#if REPLICAS_LOST + FAILED_PROMOTIONS > 0
    run GivenBack(0);
    run GivenBack(1)
#endif
  }
}

#define in_step ((n[0].mode == kProtected && n[1].mode == kFollow) || (n[1].mode == kProtected && n[0].mode == kFollow))

ltl safe { [] (one_is_heard && terms_differ) }
ltl again { [] <> in_step }
