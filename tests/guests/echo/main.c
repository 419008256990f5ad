// Answers ARP, ICMP echo requests and UDP to one port, as fast as it can, and nothing else; or
// (flood=BYTES) sends numbered frames as fast as the card takes them, and listens to nobody.
//
// Receive and transmit buffers are the same ones: a frame is turned around where it lies and goes
// back to the receive queue once it is sent. All else that changes, the rings, the counters and the
// stack, is one page: so an echo dirties two.
#include "virtio.h"

const char g_guest_name[] = "ECHO";

enum {
  kBuffers = 32,
  kBufferBytes = 2048,
  kHeaderBytes = 12,  // virtio_net_hdr, 5.1.6
  kRingBytes = 864,   // of kBuffers entries
};
#define VIRTIO_NET_F_MAC (1ull << 5)

struct Counters {
  uint64_t received, arp, icmp, udp, others;
};

// The vCPU's page: its stack grows down from the end.
struct CpuPage {
  _Alignas(16) uint8_t rings[2][kRingBytes];
  struct VirtioDevice device;
  struct VirtioRing receive, transmit;
  struct Counters counters;
  uint8_t mac[6];
};
_Static_assert(sizeof(struct CpuPage) <= GUEST_PAGE_SIZE - 1536, "room for the stack");
__attribute__((section(".cpu"), aligned(GUEST_PAGE_SIZE))) static union {
  struct CpuPage cpu;
  uint8_t page[GUEST_PAGE_SIZE];
} g_page;
#define g_cpu g_page.cpu

static uint8_t g_ip[4] = {10, 0, 0, 2};
static uint64_t g_port = 7;
static uint64_t g_window = UINT64_MAX;
static uint64_t g_count = 0;
static uint64_t g_event_index = 1;
static uint64_t g_report_ms = 0;
static uint64_t g_flood = 0;
static uint64_t g_flooded = 0;  // frames so far

static const struct NumberOption kNumbers[] = {
    VIRTIO_OPTIONS,
    {"device", &g_window, 0, 31},
    {"port", &g_port, 1, 65535},
    {"count", &g_count, 0, 1},
    {"event_idx", &g_event_index, 0, 1},
    {"report_ms", &g_report_ms, 0, 86400000},
    {"flood", &g_flood, 0, 1514},
};

static bool ParseAddress(const char* name, const char* text) {
  if (!SameText(name, "ip")) return false;
  for (int i = 0; i < 4; ++i) {
    uint32_t part = 0;
    if (*text < '0' || *text > '9') Fail("not an IPv4 address: ", name);
    for (; *text >= '0' && *text <= '9'; ++text) {
      part = part * 10 + (uint32_t)(*text - '0');
      if (part > 255) Fail("not an IPv4 address: ", name);
    }
    g_ip[i] = (uint8_t)part;
    if (*text++ != (i < 3 ? '.' : 0)) Fail("not an IPv4 address: ", name);
  }
  return true;
}

static uint8_t* Buffer(uint32_t index) {
  return (uint8_t*)(uintptr_t)(GUEST_DATA_PA + (uint64_t)index * kBufferBytes);
}

static uint16_t Load16(const uint8_t* at) { return (uint16_t)(at[0] << 8 | at[1]); }
static void Store16(uint8_t* at, uint32_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}
static bool Same(const uint8_t* a, const uint8_t* b, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}
static void Copy(uint8_t* to, const uint8_t* from, size_t size) {
  for (size_t i = 0; i < size; ++i) to[i] = from[i];
}

static void ReturnToSender(uint8_t* frame) {
  Copy(frame, frame + 6, 6);
  Copy(frame + 6, g_cpu.mac, 6);
}

// RFC 826: "who has our address?" becomes "we have".
static bool AnswerArp(uint8_t* frame, uint32_t size) {
  static const uint8_t kRequest[] = {0, 1, 8, 0, 6, 4, 0, 1};
  uint8_t* const arp = frame + 14;
  if (size < 42 || !Same(arp, kRequest, sizeof(kRequest)) || !Same(arp + 24, g_ip, 4)) return false;
  arp[7] = 2;
  Copy(arp + 18, arp + 8, 10);  // the asker becomes the target
  Copy(arp + 8, g_cpu.mac, 6);
  Copy(arp + 14, g_ip, 4);
  ReturnToSender(frame);
  g_cpu.counters.arp++;
  return true;
}

// RFC 792. The sum changes as the type does, from 8 to 0 (RFC 1624).
static bool AnswerIcmp(uint8_t* icmp) {
  if (icmp[0] != 8 || icmp[1] != 0) return false;
  icmp[0] = 0;
  uint32_t sum = (uint32_t)Load16(icmp + 2) + 0x0800;
  sum = (sum & 0xffff) + (sum >> 16);
  Store16(icmp + 2, sum);
  g_cpu.counters.icmp++;
  return true;
}

// Ports change places, which leaves the sum as it is. With count=1 the payload tells how many came.
static bool AnswerUdp(uint8_t* udp, uint32_t size) {
  if (Load16(udp + 2) != g_port || Load16(udp) == g_port || Load16(udp + 4) > size) return false;
  Copy(udp + 2, udp, 2);
  Store16(udp, (uint32_t)g_port);
  g_cpu.counters.udp++;
  if (g_count != 0 && Load16(udp + 4) >= 8 + 16) {
    for (int i = 0; i < 8; ++i) udp[16 + i] = (uint8_t)(g_cpu.counters.udp >> 8 * i);
    Store16(udp + 6, 0);  // no checksum (RFC 768)
  }
  return true;
}

static bool AnswerIp(uint8_t* frame, uint32_t size) {
  uint8_t* const ip = frame + 14;
  if (size < 14 + 20 + 8 || ip[0] != 0x45 || !Same(frame, g_cpu.mac, 6)) return false;
  const uint32_t total = Load16(ip + 2);
  const bool fragment = (Load16(ip + 6) & 0x3fff) != 0;
  if (total < 28 || total > size - 14 || fragment || !Same(ip + 16, g_ip, 4)) return false;
  if (!(ip[9] == 1 && AnswerIcmp(ip + 20)) && !(ip[9] == 17 && AnswerUdp(ip + 20, total - 20))) {
    return false;
  }
  Copy(ip + 16, ip + 12, 4);  // the header's sum stays as it is
  Copy(ip + 12, g_ip, 4);
  ReturnToSender(frame);
  return true;
}

static bool Answer(uint8_t* frame, uint32_t size) {
  g_cpu.counters.received++;
  if (size >= 14) {
    const uint16_t type = Load16(frame + 12);
    if (type == 0x0800 && AnswerIp(frame, size)) return true;
    if (type == 0x0806 && AnswerArp(frame, size)) return true;
  }
  g_cpu.counters.others++;
  return false;
}

static void PostReceive(uint32_t index) { RingAdd(&g_cpu.receive, (uint16_t)index); }

static void Poll(void) {
  struct VirtioUsedElement used;
  while (RingTake(&g_cpu.receive, &used)) {
    if (used.id >= kBuffers || used.size > kBufferBytes) FailNumber("bad used element ", used.id);
    uint8_t* const buffer = Buffer(used.id);
    if (used.size < kHeaderBytes || !Answer(buffer + kHeaderBytes, used.size - kHeaderBytes)) {
      PostReceive(used.id);
      continue;
    }
    memset(buffer, 0, kHeaderBytes);
    g_cpu.transmit.desc[used.id].size = used.size;
    RingAdd(&g_cpu.transmit, (uint16_t)used.id);
  }
  RingPublish(&g_cpu.transmit, &g_cpu.device);
  while (RingTake(&g_cpu.transmit, &used)) {
    if (used.id >= kBuffers) FailNumber("bad used element ", used.id);
    PostReceive(used.id);
  }
  RingPublish(&g_cpu.receive, &g_cpu.device);
}

enum { kFloodType = 0x88b5 };  // IEEE 802, local experiments

// Broadcast from our address; behind the type its number, from 1, little-endian, then zeros.
static void SendNumbered(uint32_t index) {
  uint8_t* const frame = Buffer(index) + kHeaderBytes;
  const uint64_t number = ++g_flooded;
  for (int i = 0; i < 8; ++i) frame[14 + i] = (uint8_t)(number >> 8 * i);
  RingAdd(&g_cpu.transmit, (uint16_t)index);
}

static void Flood(void) {
  struct VirtioUsedElement used;
  while (RingTake(&g_cpu.transmit, &used)) {
    if (used.id >= kBuffers) FailNumber("bad used element ", used.id);
    SendNumbered(used.id);
  }
  RingPublish(&g_cpu.transmit, &g_cpu.device);
}

static void StartFlood(void) {
  if (g_flood < 64) FailNumber("a frame is longer than flood=", g_flood);
  for (uint32_t i = 0; i < kBuffers; ++i) {
    uint8_t* const buffer = Buffer(i);
    memset(buffer, 0, kBufferBytes);
    memset(buffer + kHeaderBytes, 0xff, 6);
    Copy(buffer + kHeaderBytes + 6, g_cpu.mac, 6);
    Store16(buffer + kHeaderBytes + 12, kFloodType);
    g_cpu.transmit.desc[i].size = kHeaderBytes + (uint32_t)g_flood;
    SendNumbered(i);
  }
  RingPublish(&g_cpu.transmit, &g_cpu.device);
}

static void SetUp(void) {
  struct VirtioDevice* const device = &g_cpu.device;
  *device = VirtioFind(kVirtioNet, g_window);
  const uint64_t wanted = VIRTIO_NET_F_MAC | (g_event_index != 0 ? VIRTIO_F_EVENT_IDX : 0);
  if (!VirtioNegotiate(device, wanted)) Fail("the device refuses the features", "");
  if ((device->features & VIRTIO_NET_F_MAC) == 0) Fail("the device has no MAC address", "");
  for (uint32_t i = 0; i < 6; ++i) g_cpu.mac[i] = Mmio8(device->window + kVirtioConfig + i);
  const uint64_t rings = (uint64_t)(uintptr_t)g_cpu.rings;
  if (RingSetUp(&g_cpu.receive, device, 0, kBuffers, rings) > kRingBytes ||
      RingSetUp(&g_cpu.transmit, device, 1, kBuffers, rings + kRingBytes) > kRingBytes ||
      g_cpu.receive.size != kBuffers || g_cpu.transmit.size != kBuffers) {
    FailNumber("queues of the device have less entries than ", kBuffers);
  }
  for (uint32_t i = 0; i < kBuffers; ++i) {
    const uint64_t buffer = (uint64_t)(uintptr_t)Buffer(i);
    g_cpu.receive.desc[i] = (struct VirtioDesc){buffer, kBufferBytes, kDescWrite, 0};
    g_cpu.transmit.desc[i] = (struct VirtioDesc){buffer, 0, 0, 0};
    if (g_flood == 0) PostReceive(i);
  }
  VirtioStart(device);
  RingPublish(&g_cpu.receive, device);
}

static void PrintBanner(void) {
  struct Line line = {0};
  Text(&line, "echo: mac=");
  for (int i = 0; i < 6; ++i) {
    if (i != 0) Text(&line, ":");
    Hex(&line, g_cpu.mac[i], 2);
  }
  Text(&line, " ip=");
  for (int i = 0; i < 4; ++i) {
    if (i != 0) Text(&line, ".");
    Decimal(&line, g_ip[i], 1);
  }
  Text(&line, " port=");
  Decimal(&line, g_port, 1);
  Text(&line, " ready");
  Send(&line);
}

static void Report(void) {
  struct Line line = {0};
  const struct Counters* const counters = &g_cpu.counters;
  if ((VirtioGet(&g_cpu.device, kVirtioStatus) & kVirtioNeedsReset) != 0) {
    Fail("the device needs a reset", "");
  }
  Text(&line, "echo: received ");
  Decimal(&line, counters->received, 1);
  Text(&line, " arp ");
  Decimal(&line, counters->arp, 1);
  Text(&line, " icmp ");
  Decimal(&line, counters->icmp, 1);
  Text(&line, " udp ");
  Decimal(&line, counters->udp, 1);
  Text(&line, " others ");
  Decimal(&line, counters->others, 1);
  Text(&line, " flooded ");
  Decimal(&line, g_flooded, 1);
  Send(&line);
}

void guest_main(uint64_t index, const struct StartInfo* info) {
  (void)index;
  ConsoleInit();
  ParseOptions(info, kNumbers, sizeof(kNumbers) / sizeof(kNumbers[0]), ParseAddress);
  RequireRam(info, GUEST_CPU_PA, GUEST_DATA_PA + kBuffers * kBufferBytes);
  if (g_guest_options.tsc_khz == 0) g_guest_options.tsc_khz = FindTscKhz();
  memset(&g_cpu, 0, sizeof(g_cpu));
  SetUp();
  PrintBanner();
  if (g_flood != 0) StartFlood();
  const uint64_t period = g_report_ms * g_guest_options.tsc_khz;
  uint64_t next_report = ReadTsc() + period;
  for (;;) {
    if (g_flood != 0) {
      Flood();
    } else {
      Poll();
    }
    if (period != 0 && Due(next_report, ReadTsc(), period)) {
      next_report = NextDeadline(next_report, ReadTsc(), period);
      Report();
    }
    Pause();
  }
}
