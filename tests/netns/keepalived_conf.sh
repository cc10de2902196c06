# A keepalived.conf as it is: checks, weights, a reload, a refused reload, and
# its import as TOML, all with the file that keepalived would read.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
CONFIG=$WORK/keepalived.conf

# keepalived_conf WEIGHT_OF_RS2
keepalived_conf() {
    cat >"$WORK/servers.inc" <<-END
	\$SERVER= \\
	real_server 10.77.0.\${HOST} 80 { \\
	    weight \${WEIGHT} \\
	    TCP_CHECK { \\
	        connect_timeout 1 \\
	        warmup 0 \\
	    } \\
	}
	END
    cat >"$CONFIG" <<-END
	! Configuration File for keepalived
	include servers.inc
	global_defs {
	    router_id LVS_DEVEL
	}
	virtual_server $VIP 80
	{
	    delay_loop 1
	    lvs_sched wrr
	    lb_kind DR
	    protocol TCP
	    @$(uname -n | cut -d. -f1) inhibit_on_failure
	    ~LST({HOST, WEIGHT}, {101, 1}, {102, $1}) \$SERVER
	}
	END
}
keepalived_conf 1
start_director
answers=$(names 100 http://$VIP/)
between "rs2 at weight 1:1" "$(served rs2 <<<"$answers")" 48 52

keepalived_conf 3
contains "what the reload says" "$(reload)" '10\.77\.0\.102.*3'
answers=$(names 100 http://$VIP/)
between "rs2 at weight 1:3" "$(served rs2 <<<"$answers")" 73 77

echo 'vitrual_server 10.77.0.200 80 { }' >>"$CONFIG"
status=0
said=$(reload 2>&1) || status=$?
equal "status of a reload of a wrong file" "$status" 2
contains "what it says" "$said" 'keepalived.conf:[0-9]+:1: .*vitrual_server.*did you mean virtual_server'

keepalived_conf 3
"$APPLIANCE" import "$CONFIG" --strict >"$WORK/imported.toml"
"$APPLIANCE" check --print "$WORK/imported.toml" | cmp - "$WORK/imported.toml"
