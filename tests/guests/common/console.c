// Serial console (16550 at COM1) and the ways to end the guest. Each port access is a vmexit, so
// lines are short and the line status register is read once a line, or not at all.
#include "guest.h"

enum { kCom1 = 0x3f8, kLsr = kCom1 + 5, kLsrThrEmpty = 0x20 };

void ConsoleInit(void) {
  Out8(kCom1 + 1, 0x00);  // no interrupts
  Out8(kCom1 + 3, 0x80);  // divisor latch
  Out8(kCom1 + 0, 1);     // 115200
  Out8(kCom1 + 1, 0);
  Out8(kCom1 + 3, 0x03);  // 8n1
  Out8(kCom1 + 2, 0x07);  // FIFO on, both empty
  Out8(kCom1 + 4, 0x03);  // DTR, RTS
}

void Text(struct Line* line, const char* text) {
  while (*text != 0 && line->length < sizeof(line->text) - 1) {
    line->text[line->length++] = *text++;
  }
}

void Decimal(struct Line* line, uint64_t value, uint32_t min_digits) {
  char digits[21];
  uint32_t at = sizeof(digits) - 1;
  digits[at] = 0;
  do {
    digits[--at] = (char)('0' + value % 10);
    value /= 10;
  } while (value != 0 || sizeof(digits) - 1 - at < min_digits);
  Text(line, digits + at);
}

void Hex(struct Line* line, uint64_t value, uint32_t digits) {
  char text[2] = {0, 0};
  for (uint32_t i = digits; i-- > 0;) {
    text[0] = "0123456789abcdef"[value >> (4 * i) & 15];
    Text(line, text);
  }
}

static void WaitForUart(void) {
  // Bounded: a VMM without a line status register must not hang us.
  for (uint32_t i = 0; i < 100000 && (In8(kLsr) & kLsrThrEmpty) == 0; ++i) Pause();
}

void Send(struct Line* line) {
  if (g_guest_options.lsr == 1) WaitForUart();
  line->text[line->length++] = '\n';
  for (uint32_t i = 0; i < line->length; ++i) {
    if (g_guest_options.lsr == 2) WaitForUart();
    Out8(kCom1, (uint8_t)line->text[i]);
  }
  line->length = 0;
}

void PowerOff(void) {
  if (!g_guest_options.reset_at_end) {
    Out16(0x604, 0x2000);  // PM1a control: SLP_EN, S5; QEMU's PIIX4 at SeaBIOS's base, and romulusd
    for (uint32_t i = 0; i < 100000000; ++i) Pause();
  }
  Out8(0x64, 0xfe);  // i8042: pulse the reset line
  for (;;) Pause();
}

void Fail(const char* what, const char* detail) {
  struct Line line = {0};
  Text(&line, g_guest_name);
  Text(&line, " ERROR ");
  Text(&line, what);
  Text(&line, detail);
  Send(&line);
  PowerOff();
}

void FailNumber(const char* what, uint64_t value) {
  struct Line line = {0};
  Decimal(&line, value, 1);
  line.text[line.length] = 0;
  Fail(what, line.text);
}

struct TrapFrame {
  uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

// Runs at CPL0.
void guest_trap(const struct TrapFrame* frame, uint64_t cr2) {
  struct Line line = {0};
  Text(&line, g_guest_name);
  Text(&line, " TRAP vector ");
  Decimal(&line, frame->vector, 1);
  Text(&line, " error ");
  Hex(&line, frame->error, 8);
  Text(&line, " rip ");
  Hex(&line, frame->rip, 8);
  Text(&line, " cs ");
  Hex(&line, frame->cs, 4);
  Text(&line, " rsp ");
  Hex(&line, frame->rsp, 8);
  Text(&line, " cr2 ");
  Hex(&line, cr2, 16);
  Send(&line);
  PowerOff();
}
