# A miniature hypervisor, built with the calling conventions of xen/Makefile and xen/Rules.mk: a compiler
# call to a temporary object, objcopy to the one that counts, an archive, one object linked before the rest.
include ../Config.mk
OBJS := common/a.o common/b.o common/multi_2.o common/multi_3.o common/version.o common/livepatch.o
OBJS += common/i.init.o common/t.o common/u.o arch/x86/entry.o
LIBS := lib/l.o
FLAGS := -D__XEN__ -O2 -nostdinc -fno-builtin -fno-pic -ffreestanding -Iinclude -include include/generated/autoconf.h $(EXTRA)

all: xen-syms
.SUFFIXES:

olddefconfig:
	{ grep -v VANISH .config; echo CONFIG_X86=y; sed -n 's/^default //p' Kconfig; } | sort -u > .config.new
	mv .config.new .config

distclean:
	find . -name '*.o' -o -name '.*.d' -o -name autoconf.h | xargs rm -f
	touch distclean-was-here

include/generated/autoconf.h: .config
	mkdir -p include/generated
	sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=y/#define \1 1/p' .config > $@.new
	cmp -s $@.new $@ || cp $@.new $@

include/generated/xlat.h: include/xlat.lst
	mkdir -p include/generated
	sed 's/^/#define /' $< > $@

include/xen/compile.h: FORCE
	echo '#define BUILT "$(XEN_BUILD_DATE) $(XEN_BUILD_TIME) $(XEN_WHOAMI) $(XEN_BUILD_HOST)"' > $@

include/generated/offsets.h: common/offsets.c include/xen/s.h | include/generated/autoconf.h
	$(CC) $(FLAGS) -S $< -o common/offsets.s
	sed -n 's/^[[:space:]]*->/#define /p' common/offsets.s > $@.new
	cmp -s $@.new $@ || cp $@.new $@

include/generated/macros.h: common/macros.c include/xen/wait.h | include/generated/autoconf.h
	$(CC) $(FLAGS) -D__ASSEMBLY__ -P -E $< -o $@

GENERATED := include/generated/macros.h include/generated/offsets.h include/generated/autoconf.h include/generated/xlat.h include/xen/compile.h

define compile
	$(CC) -MMD -MP -MF $(@D)/.$(@F).d $(FLAGS) $(1) -c $< -o $(@D)/.$(@F).tmp -MQ $@
	$(OBJCOPY) --redefine-sym $(<F)=$< $(@D)/.$(@F).tmp $@ && rm -f $(@D)/.$(@F).tmp
endef

common/multi_%.o: common/multi.c Makefile | $(GENERATED)
	$(call compile,-DLEVEL=$*)
%.o: %.c Makefile | $(GENERATED)
	$(call compile)
%.init.o: %.o
	$(OBJCOPY) --rename-section .rodata=.init.rodata $< $@
%.o: %.S Makefile | $(GENERATED)
	$(CC) -MMD -MP -MF $(@D)/.$(@F).d $(FLAGS) -D__ASSEMBLY__ -c $< -o $@
lib/lib.a: $(LIBS)
	rm -f $@; $(AR) cr $@ $^
prelink.o: $(OBJS) lib/lib.a
	$(LD) -r -o $@ $(filter %.o,$^) --start-group lib/lib.a --end-group
common/check.o: common/check.c
	$(CC) -m64 -c $< -o $@
xen-syms: prelink.o common/check.o
	$(LD) -e 0 -N prelink.o -o .xen-syms.0
	$(LD) -e 0 -N prelink.o -o $@

FORCE:
-include $(wildcard common/.*.d lib/.*.d arch/x86/.*.d)
