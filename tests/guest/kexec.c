/* kexec KERNEL INITRD WORDS: starts another kernel in place of the one that runs. Debian's kexec wants libraries of Xen.
 * The devices are shut down as for a reboot (kexec_file_load(2), reboot(2) with LINUX_REBOOT_CMD_KEXEC). */
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "kexec KERNEL INITRD WORDS\n");
		return 2;
	}
	int kernel = open(argv[1], O_RDONLY), initrd = open(argv[2], O_RDONLY);
	if (kernel < 0 || initrd < 0) {
		perror("kexec: opening kernel and initrd");
		return 1;
	}
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], 0UL)) {
		perror("kexec: loading the kernel");
		return 1;
	}
	reboot(LINUX_REBOOT_CMD_KEXEC);
	perror("kexec: starting the kernel");
	return 1;
}
